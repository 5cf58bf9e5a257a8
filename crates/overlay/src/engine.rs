//! Packet in, packets out: the WireGuard sessions of one pod, and the filters on both sides of them.
//!
//! No descriptor and no thread: [`crate::pump`] feeds it. (boringtun keeps its own clock for handshakes; wall time is an
//! argument.) Peers come from [`crate::roster`]; the engine believes what it is given.
//!
//! **Invariant:** a packet leaves only with the pod's own source and a peer's address as destination; a packet enters only
//! with that very peer's address as source and the pod's own as destination. IPv6 never passes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{Ipv4Addr, SocketAddr};

use boringtun::noise::errors::WireGuardError;
use boringtun::noise::handshake::parse_handshake_anon;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Packet, Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};

use crate::packet::{MTU, addresses};

/// Largest datagram worth reading: MTU, WireGuard's 32 bytes, rounded up. A longer one is dropped.
pub const DATAGRAM_BYTES_MAX: usize = 1536;

/// boringtun wants the datagram's length, the packet's length + 32, and 148 bytes for a handshake.
const BUFFER_BYTES: usize = DATAGRAM_BYTES_MAX + 64;

/// Handshakes a second from everyone together before senders must prove their address by a cookie; each costs ~0.1 ms.
const HANDSHAKES_PER_S: u64 = 200;

/// WireGuard's usual keepalive is 25 s; NATs forget UDP after 30 s or later, so twice within that.
const KEEPALIVE_S: u16 = 15;

/// A session index has 24 bits (boringtun shifts it by 8).
const INDEX_MASK: u32 = 0x00ff_ffff;

/// A member of the cluster as the roster admitted it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    pub ip: Ipv4Addr,
    pub wg_public: [u8; 32],
    pub endpoint: SocketAddr,
    /// Seconds since 1970; [`Engine::tick`] drops the peer then.
    pub expires_at_unix_s: u64,
}

/// What the engine wants done with bytes.
#[derive(Debug)]
pub enum Emit<'a> {
    /// Send this datagram.
    Network(SocketAddr, &'a [u8]),
    /// Write this IPv4 packet to the pod's TUN device.
    Tunnel(&'a [u8]),
}

/// What went to and came from one peer, in packets and bytes inside the tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub sent_packets: u64,
    pub sent_bytes: u64,
    pub received_packets: u64,
    pub received_bytes: u64,
    /// Decrypted, but with a source or destination that this peer may not use.
    pub forged: u64,
    /// Not decrypted: bad signature, replay, no session.
    pub rejected: u64,
}

/// Packets that belong to no peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drops {
    /// From the pod: not IPv4, too long, or cut off.
    pub not_ipv4: u64,
    /// From the pod: a source that is not its own.
    pub wrong_source: u64,
    /// From the pod: to an address that is no peer's.
    pub no_such_peer: u64,
    /// From the network: a handshake by a key that is no peer's.
    pub unknown_key: u64,
    /// From the network: a session index that is not ours.
    pub unknown_session: u64,
    /// From the network: not WireGuard, too long, or a handshake with a false MAC.
    pub malformed: u64,
}

struct Session {
    peer: Peer,
    index: u32,
    tunn: Tunn,
    counters: Counters,
}

/// The sessions of one pod.
pub struct Engine {
    own_ip: Ipv4Addr,
    secret: StaticSecret,
    public: PublicKey,
    sessions: BTreeMap<Ipv4Addr, Session>,
    by_key: HashMap<[u8; 32], Ipv4Addr>,
    by_index: HashMap<u32, Ipv4Addr>,
    next_index: u32,
    gate: RateLimiter,
    drops: Drops,
    buffer: Box<[u8; BUFFER_BYTES]>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let peers: Vec<_> = self.sessions.keys().collect();
        f.debug_struct("Engine").field("own_ip", &self.own_ip).field("peers", &peers).finish_non_exhaustive()
    }
}

impl Engine {
    /// An engine with a fresh key and no peers.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn generate(own_ip: Ipv4Addr) -> Result<Self, getrandom::Error> {
        let mut secret = [0u8; 32];
        getrandom::fill(&mut secret)?;
        Ok(Self::new(own_ip, secret))
    }

    /// An engine with this X25519 secret and no peers.
    #[must_use]
    pub fn new(own_ip: Ipv4Addr, secret: [u8; 32]) -> Self {
        let secret = StaticSecret::from(secret);
        let public = PublicKey::from(&secret);
        Self {
            own_ip,
            public,
            secret,
            sessions: BTreeMap::new(),
            by_key: HashMap::new(),
            by_index: HashMap::new(),
            next_index: 1,
            gate: RateLimiter::new(&public, HANDSHAKES_PER_S),
            drops: Drops::default(),
            buffer: Box::new([0; BUFFER_BYTES]),
        }
    }

    /// The key that goes into the pod key statement.
    #[must_use]
    pub fn public_key(&self) -> [u8; 32] {
        self.public.to_bytes()
    }

    /// Makes exactly these the peers. Sessions with an unchanged key go on; a new one begins with a handshake.
    pub fn set_peers<'a>(&mut self, peers: impl Iterator<Item = &'a Peer>, emit: &mut dyn FnMut(Emit<'_>)) {
        let (mut wanted, own_ip) = (BTreeSet::new(), self.own_ip);
        for peer in peers.filter(|peer| peer.ip != own_ip) {
            wanted.insert(peer.ip);
            match self.sessions.get_mut(&peer.ip) {
                Some(session) if session.peer.wg_public == peer.wg_public => session.peer = *peer,
                _ => self.connect(*peer, emit),
            }
        }
        let gone: Vec<Ipv4Addr> = self.sessions.keys().filter(|ip| !wanted.contains(ip)).copied().collect();
        for ip in gone {
            self.forget(ip);
        }
    }

    fn connect(&mut self, peer: Peer, emit: &mut dyn FnMut(Emit<'_>)) {
        self.forget(peer.ip);
        let index = self.free_index();
        let key = PublicKey::from(peer.wg_public);
        let mut tunn = Tunn::new(self.secret.clone(), key, None, Some(KEEPALIVE_S), index, None);
        if let TunnResult::WriteToNetwork(hello) = tunn.format_handshake_initiation(&mut self.buffer[..], false) {
            emit(Emit::Network(peer.endpoint, hello));
        }
        self.by_key.insert(peer.wg_public, peer.ip);
        self.by_index.insert(index, peer.ip);
        self.sessions.insert(peer.ip, Session { peer, index, tunn, counters: Counters::default() });
    }

    fn forget(&mut self, ip: Ipv4Addr) {
        if let Some(session) = self.sessions.remove(&ip) {
            self.by_key.remove(&session.peer.wg_public);
            self.by_index.remove(&session.index);
        }
    }

    fn free_index(&mut self) -> u32 {
        while self.by_index.contains_key(&self.next_index) {
            self.next_index = (self.next_index + 1) & INDEX_MASK;
        }
        let index = self.next_index;
        self.next_index = (index + 1) & INDEX_MASK;
        index
    }

    /// A packet that the pod sent.
    pub fn from_tunnel(&mut self, packet: &[u8], emit: &mut dyn FnMut(Emit<'_>)) {
        let Some((source, destination)) = addresses(packet).filter(|_| packet.len() <= MTU) else {
            self.drops.not_ipv4 += 1;
            return;
        };
        if source != self.own_ip {
            self.drops.wrong_source += 1;
            return;
        }
        let Some(session) = self.sessions.get_mut(&destination) else {
            self.drops.no_such_peer += 1;
            return;
        };
        session.counters.sent_packets += 1;
        session.counters.sent_bytes += packet.len() as u64;
        if let TunnResult::WriteToNetwork(sealed) = session.tunn.encapsulate(packet, &mut self.buffer[..]) {
            emit(Emit::Network(session.peer.endpoint, sealed));
        }
    }

    /// A datagram that the network delivered.
    pub fn from_network(&mut self, source: SocketAddr, datagram: &[u8], emit: &mut dyn FnMut(Emit<'_>)) {
        let Some(ip) = self.whose(source, datagram, emit) else { return };
        let Some(session) = self.sessions.get_mut(&ip) else { return };
        let mut result = session.tunn.decapsulate(Some(source.ip()), datagram, &mut self.buffer[..]);
        loop {
            match result {
                // An answer, then whatever had waited for the session.
                TunnResult::WriteToNetwork(answer) => emit(Emit::Network(session.peer.endpoint, answer)),
                TunnResult::WriteToTunnelV4(packet, _) => {
                    match addresses(packet) {
                        Some((from, to)) if from == ip && to == self.own_ip => {
                            session.counters.received_packets += 1;
                            session.counters.received_bytes += packet.len() as u64;
                            emit(Emit::Tunnel(packet));
                        }
                        _ => session.counters.forged += 1,
                    }
                    return;
                }
                TunnResult::WriteToTunnelV6(..) => {
                    session.counters.forged += 1;
                    return;
                }
                TunnResult::Err(_) => {
                    session.counters.rejected += 1;
                    return;
                }
                TunnResult::Done => return,
            }
            result = session.tunn.decapsulate(None, &[], &mut self.buffer[..]);
        }
    }

    /// Finds the peer that a datagram claims to come from: a handshake by its static key, anything else by session index.
    fn whose(&mut self, source: SocketAddr, datagram: &[u8], emit: &mut dyn FnMut(Emit<'_>)) -> Option<Ipv4Addr> {
        let parsed = Tunn::parse_incoming_packet(datagram).ok().filter(|_| datagram.len() <= DATAGRAM_BYTES_MAX);
        let session = match parsed {
            None => {
                self.drops.malformed += 1;
                return None;
            }
            // The key exchange that finds the static key is dear: MAC and rate come first.
            Some(Packet::HandshakeInit(init)) => {
                match self.gate.verify_packet(Some(source.ip()), datagram, &mut self.buffer[..]) {
                    Ok(_) => {}
                    Err(TunnResult::WriteToNetwork(cookie)) => {
                        emit(Emit::Network(source, cookie));
                        return None;
                    }
                    Err(_) => {
                        self.drops.malformed += 1;
                        return None;
                    }
                }
                let claimed = parse_handshake_anon(&self.secret, &self.public, &init).ok();
                let ip = claimed.and_then(|half| self.by_key.get(&half.peer_static_public).copied());
                self.drops.unknown_key += u64::from(ip.is_none());
                return ip;
            }
            Some(Packet::HandshakeResponse(packet)) => packet.receiver_idx,
            Some(Packet::PacketCookieReply(packet)) => packet.receiver_idx,
            Some(Packet::PacketData(packet)) => packet.receiver_idx,
        };
        let ip = self.by_index.get(&(session >> 8)).copied();
        self.drops.unknown_session += u64::from(ip.is_none());
        ip
    }

    /// Keepalives, handshakes again, expiry. Call four times a second.
    pub fn tick(&mut self, now_unix_s: u64, emit: &mut dyn FnMut(Emit<'_>)) {
        self.gate.reset_count();
        let expired = |session: &&Session| session.peer.expires_at_unix_s <= now_unix_s;
        let gone: Vec<Ipv4Addr> = self.sessions.values().filter(expired).map(|session| session.peer.ip).collect();
        for ip in gone {
            self.forget(ip);
        }
        for session in self.sessions.values_mut() {
            let mut result = session.tunn.update_timers(&mut self.buffer[..]);
            if matches!(result, TunnResult::Err(WireGuardError::ConnectionExpired)) {
                result = session.tunn.format_handshake_initiation(&mut self.buffer[..], false);
            }
            if let TunnResult::WriteToNetwork(datagram) = result {
                emit(Emit::Network(session.peer.endpoint, datagram));
            }
        }
    }

    /// Each peer with its counters and the seconds since its last handshake, if there was one.
    pub fn counters(&self) -> impl Iterator<Item = (Ipv4Addr, Counters, Option<u64>)> {
        let age = |session: &Session| session.tunn.time_since_last_handshake().map(|age| age.as_secs());
        self.sessions.values().map(move |session| (session.peer.ip, session.counters, age(session)))
    }

    /// What belonged to no peer.
    #[must_use]
    pub fn drops(&self) -> Drops {
        self.drops
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::tests::ipv4;

    fn ip(host: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, host)
    }

    fn endpoint(host: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, host], 1000))
    }

    fn peer(engine: &Engine) -> Peer {
        let wg_public = engine.public_key();
        let host = engine.own_ip.octets()[3];
        Peer { ip: engine.own_ip, wg_public, endpoint: endpoint(host), expires_at_unix_s: 100 }
    }

    /// Engines joined by a network that delivers in order; what reaches a pod's TUN is kept.
    struct Net {
        engines: Vec<Engine>,
        delivered: Vec<(Ipv4Addr, Vec<u8>)>,
    }

    impl Net {
        fn new(count: u8) -> Self {
            Self { engines: (1..=count).map(|n| Engine::new(ip(n), [n; 32])).collect(), delivered: vec![] }
        }

        /// `engines[a]` takes `peers` for its peers; the network then runs dry.
        fn introduce(&mut self, a: usize, peers: &[Peer]) {
            let mut wire = vec![];
            self.engines[a].set_peers(peers.iter(), &mut |out| keep(&mut wire, out));
            self.run(a, wire);
        }

        fn send(&mut self, a: usize, packet: &[u8]) {
            let mut wire = vec![];
            self.engines[a].from_tunnel(packet, &mut |out| keep(&mut wire, out));
            self.run(a, wire);
        }

        fn run(&mut self, from: usize, wire: Vec<(SocketAddr, Vec<u8>)>) {
            let mut queue: Vec<_> = wire.into_iter().map(|(to, bytes)| (from, to, bytes)).collect();
            while !queue.is_empty() {
                let (from, to, bytes) = queue.remove(0);
                let source = endpoint(self.engines[from].own_ip.octets()[3]);
                let Some(at) = self.engines.iter().position(|e| endpoint(e.own_ip.octets()[3]) == to) else { continue };
                let (mut wire, own) = (vec![], self.engines[at].own_ip);
                let delivered = &mut self.delivered;
                self.engines[at].from_network(source, &bytes, &mut |out| match out {
                    Emit::Tunnel(packet) => delivered.push((own, packet.to_vec())),
                    network => keep(&mut wire, network),
                });
                queue.extend(wire.into_iter().map(|(to, bytes)| (at, to, bytes)));
            }
        }

        fn all_know_all(count: u8) -> Self {
            let mut net = Self::new(count);
            let peers: Vec<Peer> = net.engines.iter().map(peer).collect();
            for at in 0..net.engines.len() {
                net.introduce(at, &peers);
            }
            net
        }

        fn counters(&self, at: usize, of: Ipv4Addr) -> Counters {
            self.engines[at].counters().find(|(ip, ..)| *ip == of).unwrap().1
        }
    }

    fn keep(wire: &mut Vec<(SocketAddr, Vec<u8>)>, out: Emit<'_>) {
        match out {
            Emit::Network(to, bytes) => wire.push((to, bytes.to_vec())),
            Emit::Tunnel(_) => panic!("nothing was received"),
        }
    }

    #[test]
    fn members_reach_each_other_and_are_counted() {
        let mut net = Net::all_know_all(3);
        let packet = ipv4(ip(1), ip(3), b"hello");
        net.send(0, &packet);
        assert_eq!(net.delivered, [(ip(3), packet)]);
        assert_eq!(net.counters(0, ip(3)).sent_packets, 1);
        assert_eq!(net.counters(2, ip(1)).received_bytes, 25);
        assert_eq!(net.counters(1, ip(1)), Counters::default());
    }

    #[test]
    fn a_full_sized_packet_passes_and_a_longer_one_does_not() {
        let mut net = Net::all_know_all(2);
        net.send(0, &ipv4(ip(1), ip(2), &[7; MTU - 20]));
        assert_eq!(net.delivered.len(), 1);
        net.send(0, &ipv4(ip(1), ip(2), &[7; MTU - 19]));
        assert_eq!((net.delivered.len(), net.engines[0].drops().not_ipv4), (1, 1));
    }

    #[test]
    fn the_pod_may_not_forge_its_source_nor_leave_its_cluster() {
        let mut net = Net::all_know_all(2);
        net.send(0, &ipv4(ip(9), ip(2), b"as another"));
        net.send(0, &ipv4(ip(1), ip(3), b"to a stranger"));
        net.send(0, &ipv4(ip(1), Ipv4Addr::new(169, 254, 169, 254), b"to metadata"));
        net.send(0, &ipv4(ip(1), Ipv4Addr::BROADCAST, b"to all"));
        net.send(0, &[0x60; 60]);
        assert!(net.delivered.is_empty());
        let drops = net.engines[0].drops();
        assert_eq!((drops.wrong_source, drops.no_such_peer, drops.not_ipv4), (1, 3, 1));
    }

    /// A supplier in the cluster may run another engine than ours: its packets carry whatever addresses it likes.
    #[test]
    fn a_member_cannot_send_as_another_nor_through_us() {
        let mut net = Net::all_know_all(2);
        let rogue = peer(&net.engines[1]);
        net.engines[1].own_ip = ip(9);
        net.send(1, &ipv4(ip(9), ip(1), b"as pod 9"));
        assert_eq!(net.counters(0, ip(2)).forged, 1);
        net.engines[1].own_ip = rogue.ip;
        let target = peer(&net.engines[0]);
        net.introduce(1, &[Peer { ip: ip(77), ..target }]);
        net.send(1, &ipv4(ip(2), ip(77), b"to be forwarded"));
        assert_eq!(net.counters(0, ip(2)).forged, 2);
        assert!(net.delivered.is_empty());
    }

    #[test]
    fn a_key_that_was_not_introduced_gets_no_session() {
        let mut net = Net::new(3);
        let (one, two) = (peer(&net.engines[0]), peer(&net.engines[1]));
        net.introduce(0, &[two]);
        net.introduce(1, &[one]);
        // Engine 3 knows the others, as a pod of another cluster on the same network could; they do not know it.
        net.introduce(2, &[one, two]);
        net.send(2, &ipv4(ip(3), ip(1), b"let me in"));
        assert!(net.delivered.is_empty());
        assert!(net.engines[0].drops().unknown_key >= 1);
        assert_eq!(net.engines[0].counters().count(), 1);
    }

    #[test]
    fn a_peer_whose_key_was_swapped_gets_nothing() {
        let mut net = Net::new(2);
        let (one, two) = (peer(&net.engines[0]), peer(&net.engines[1]));
        net.introduce(1, &[one]);
        net.introduce(0, &[Peer { wg_public: [0x66; 32], ..two }]);
        net.send(0, &ipv4(ip(1), ip(2), b"secret"));
        assert!(net.delivered.is_empty());
        // The right key replaces it and the session forms.
        net.introduce(0, &[two]);
        net.send(0, &ipv4(ip(1), ip(2), b"hello"));
        assert_eq!(net.delivered.len(), 1);
    }

    #[test]
    fn garbage_replays_and_foreign_sessions_are_dropped() {
        let mut net = Net::all_know_all(2);
        let mut sealed = vec![];
        net.engines[0].from_tunnel(&ipv4(ip(1), ip(2), b"once"), &mut |out| keep(&mut sealed, out));
        let datagram = sealed.pop().unwrap().1;
        let mut tunnel = 0;
        let mut feed = |engine: &mut Engine, bytes: &[u8]| {
            engine.from_network(endpoint(1), bytes, &mut |out| tunnel += usize::from(matches!(out, Emit::Tunnel(_))));
        };
        let engine = &mut net.engines[1];
        for _ in 0..3 {
            feed(engine, &datagram);
        }
        for bytes in [&b""[..], &[4, 0, 0, 0], &[0xff; 200], &[4; 9000]] {
            feed(engine, bytes);
        }
        let mut foreign = datagram.clone();
        foreign[6] ^= 0x40;
        feed(engine, &foreign);
        let mut changed = datagram;
        *changed.last_mut().unwrap() ^= 1;
        feed(engine, &changed);
        assert_eq!(tunnel, 1);
        assert_eq!((engine.drops().malformed, engine.drops().unknown_session), (4, 1));
        assert_eq!(net.counters(1, ip(1)).rejected, 3);
    }

    #[test]
    fn a_flood_of_handshakes_is_answered_with_cookies() {
        let mut net = Net::new(1);
        let target = peer(&net.engines[0]);
        let (mut cookies, mut answers) = (0, 0);
        for n in 0..HANDSHAKES_PER_S + 20 {
            let seed: [u8; 32] = std::array::from_fn(|at| if at < 8 { n.to_le_bytes()[at] } else { 3 });
            let (mut stranger, mut wire) = (Engine::new(ip(2), seed), vec![]);
            stranger.set_peers([&target].into_iter(), &mut |out| keep(&mut wire, out));
            net.engines[0].from_network(endpoint(9), &wire[0].1, &mut |out| match out {
                Emit::Network(_, bytes) if bytes.len() == 64 => cookies += 1,
                _ => answers += 1,
            });
        }
        assert_eq!((cookies, answers), (20, 0));
    }

    #[test]
    fn an_expired_peer_is_no_peer() {
        let mut net = Net::all_know_all(2);
        net.engines[0].tick(99, &mut |_| {});
        assert_eq!(net.engines[0].counters().count(), 1);
        net.engines[0].tick(100, &mut |_| {});
        assert_eq!(net.engines[0].counters().count(), 0);
        net.send(0, &ipv4(ip(1), ip(2), b"late"));
        assert!(net.delivered.is_empty());
    }
}
