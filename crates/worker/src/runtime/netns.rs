//! The inside of a pod's network namespace: `lo`, `tun0`, one listener. Called by init, once, right after unshare.

use std::fs::{self, File, OpenOptions};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::STORE_PORT;

/// The overlay's device in every pod.
pub const DEVICE: &str = "tun0";

/// `struct ifreq`: a name of 16 bytes and a union of 24.
#[repr(C, align(8))]
struct InterfaceRequest {
    name: [u8; 16],
    value: [u8; 24],
}

impl InterfaceRequest {
    fn new(name: &str) -> Self {
        let mut request = Self { name: [0; 16], value: [0; 24] };
        request.name[..name.len()].copy_from_slice(name.as_bytes());
        request
    }

    fn address(name: &str, ip: Ipv4Addr) -> Self {
        let mut request = Self::new(name);
        // sockaddr_in: family, port, address.
        request.value[..2].copy_from_slice(&libc::sa_family_t::to_ne_bytes(2));
        request.value[4..8].copy_from_slice(&ip.octets());
        request
    }

    fn flags(name: &str, flags: i16) -> Self {
        let mut request = Self::new(name);
        request.value[..2].copy_from_slice(&flags.to_ne_bytes());
        request
    }

    fn number(name: &str, number: i32) -> Self {
        let mut request = Self::new(name);
        request.value[..4].copy_from_slice(&number.to_ne_bytes());
        request
    }

    fn apply(&mut self, descriptor: &impl AsRawFd, request: libc::Ioctl, what: &str) -> Result<()> {
        // SAFETY: `self` has the size and layout of struct ifreq, which all requests used here take.
        let done = unsafe { libc::ioctl(descriptor.as_raw_fd(), request, std::ptr::from_mut(self)) };
        if done < 0 {
            return Err(std::io::Error::last_os_error()).with_context(|| what.to_owned());
        }
        Ok(())
    }
}

/// What a pod's network consists of.
#[derive(Debug)]
pub struct Network {
    /// The only owner of `tun0`: when it closes, the device is gone.
    pub tunnel: File,
    /// 127.0.0.1:7070, for the object store.
    pub listener: TcpListener,
}

/// Builds the network of the namespace that this process is in.
///
/// # Errors
/// No TUN device that may be opened (with the command that makes one), or the kernel refused a step.
pub fn build(tun_device: &Path, ip: Ipv4Addr, prefix_bits: u32, mtu: i32, ping_gid: u32) -> Result<Network> {
    // The namespace is taken at open, so this must come after unshare.
    let tunnel = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(tun_device);
    let tunnel = match tunnel {
        Ok(tunnel) => tunnel,
        Err(error) => bail!("cannot open the TUN device {}: {error}; {}", tun_device.display(), tun_advice(tun_device)),
    };
    let no_information = libc::IFF_TUN | libc::IFF_NO_PI;
    let flags = i16::try_from(no_information).context("TUN flags fit in 16 bits")?;
    InterfaceRequest::flags(DEVICE, flags).apply(&tunnel, libc::TUNSETIFF, "make tun0")?;

    write(&format!("/proc/sys/net/ipv6/conf/{DEVICE}/disable_ipv6"), "1")?;
    // Ping sockets without CAP_NET_RAW, for the pod's group only.
    write("/proc/sys/net/ipv4/ping_group_range", &format!("{ping_gid} {ping_gid}"))?;

    let control = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mask = Ipv4Addr::from(u32::MAX.checked_shl(32 - prefix_bits).unwrap_or(0));
    InterfaceRequest::address(DEVICE, ip).apply(&control, libc::SIOCSIFADDR, "give tun0 its address")?;
    InterfaceRequest::address(DEVICE, mask).apply(&control, libc::SIOCSIFNETMASK, "give tun0 its net")?;
    InterfaceRequest::number(DEVICE, mtu).apply(&control, libc::SIOCSIFMTU, "give tun0 its MTU")?;
    for device in [DEVICE, "lo"] {
        bring_up(&control, device)?;
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, STORE_PORT)).context("listen on 127.0.0.1 in the pod")?;
    Ok(Network { tunnel, listener })
}

fn bring_up(control: &OwnedFd, device: &str) -> Result<()> {
    let up = i16::try_from(libc::IFF_UP | libc::IFF_RUNNING).context("interface flags fit in 16 bits")?;
    InterfaceRequest::flags(device, up).apply(control, libc::SIOCSIFFLAGS, "bring an interface up")
}

fn write(path: &str, value: &str) -> Result<()> {
    fs::write(path, value).with_context(|| format!("write {value:?} to {path}"))
}

/// The one command that makes a TUN device usable without root.
#[must_use]
pub fn tun_advice(tun_device: &Path) -> String {
    let device = tun_device.display();
    if tun_device.exists() {
        format!("as root, once: chmod 666 {device}")
    } else {
        format!("as root, once: mknod -m 666 {device} c 10 200")
    }
}
