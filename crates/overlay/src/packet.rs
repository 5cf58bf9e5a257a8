//! The little of IPv4 that the filters need. Pure.

use std::net::Ipv4Addr;

/// Largest packet a pod may send: the TUN's MTU.
pub const MTU: usize = 1420;

/// Source and destination of a well-formed IPv4 packet, `None` for anything else (IPv6 included).
#[must_use]
pub fn addresses(packet: &[u8]) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let header: &[u8; 20] = packet.first_chunk()?;
    let header_bytes = usize::from(header[0] & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if header[0] >> 4 != 4 || header_bytes < 20 || total < header_bytes || total > packet.len() {
        return None;
    }
    let at = |from: usize| Ipv4Addr::new(header[from], header[from + 1], header[from + 2], header[from + 3]);
    Some((at(12), at(16)))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An IPv4 packet with a payload; checksums are the kernel's business and left at zero.
    pub(crate) fn ipv4(source: Ipv4Addr, destination: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0];
        packet.extend_from_slice(&((20 + payload.len()) as u16).to_be_bytes());
        packet.extend_from_slice(&[0, 0, 0, 0, 64, 17, 0, 0]);
        packet.extend_from_slice(&source.octets());
        packet.extend_from_slice(&destination.octets());
        packet.extend_from_slice(payload);
        packet
    }

    #[test]
    fn only_whole_ipv4_packets_have_addresses() {
        let (a, b) = (Ipv4Addr::new(10, 77, 0, 1), Ipv4Addr::new(10, 77, 0, 2));
        let good = ipv4(a, b, b"hello");
        assert_eq!(addresses(&good), Some((a, b)));
        for length in 0..good.len() {
            assert_eq!(addresses(&good[..length]), None, "cut to {length} bytes");
        }
        let with_byte = |at: usize, value: u8| {
            let mut packet = good.clone();
            packet[at] = value;
            addresses(&packet)
        };
        assert_eq!(with_byte(0, 0x65), None, "IPv6");
        assert_eq!(with_byte(0, 0x44), None, "header shorter than 20 bytes");
        assert_eq!(with_byte(0, 0x4f), None, "header longer than the packet");
        assert_eq!(with_byte(3, 10), None, "total length shorter than the header");
    }
}
