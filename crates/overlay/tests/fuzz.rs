//! Whatever a control node carries as statements, a stranger sends as a datagram or a tenant writes to its tunnel: no panic,
//! bounded memory, and nothing passes that is not a member's.

#![allow(clippy::unwrap_used)]

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};

use atoll_fuzz::{Choices, Fuzz};
use atoll_overlay::packet::addresses;
use atoll_overlay::{Authorised, Emit, Engine, Peer, PodKeyStatement, Roster, SignedStatement};
use ed25519_dalek::{Signer as _, SigningKey};

#[global_allocator]
static ALLOCATOR: atoll_fuzz::memory::Counting = atoll_fuzz::memory::Counting;

const NOW_S: u64 = 1_000;

fn ip(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, host)
}

fn endpoint(host: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, host], 1000))
}

fn statement(host: u8) -> PodKeyStatement {
    PodKeyStatement {
        order: [1; 32],
        lease: [2; 32],
        overlay_ip: ip(host),
        wg_public: [host; 32],
        endpoint: endpoint(host),
        expires_at_unix_s: 2_000,
    }
}

fn device(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

/// A statement with mutated bytes below a true signature, so that what is behind the signature is reached.
fn resigned(body: &[u8], device: &SigningKey) -> Vec<u8> {
    let message = [b"atoll/podkey/1\0", body].concat();
    [body, device.verifying_key().as_bytes(), &device.sign(&message).to_bytes()].concat()
}

#[test]
fn statements() {
    let whole = statement(3).sign(&device(7)).to_bytes();
    let tally = Fuzz::of("statements").seed(statement(3).body()).seed(whole).bytes_max(512).run(|input| {
        for bytes in [input.to_vec(), resigned(input, &device(7))] {
            let Ok(read) = SignedStatement::from_bytes(&bytes) else { continue };
            assert_eq!(read.to_bytes(), bytes, "one statement has one form");
            if let Ok(said) = read.verify() {
                assert_ne!(said.endpoint.port(), 0);
                return "verified";
            }
        }
        "refused"
    });
    assert!(tally.of("verified") > 0 && tally.of("refused") > 0, "{tally:?}");
}

#[test]
fn rosters_admit_only_the_orders_own_devices() {
    // A statement with the key of a peer whose own new one is refused and whose session goes on.
    let key_twice = b"\x00\x01\x02\x03\x04\x05\x11\x12\x13\x1f !\"#$%&'-./429496".to_vec();
    let tally = Fuzz::of("rosters")
        .seed((0..96).collect::<Vec<u8>>())
        .seed(key_twice)
        .bytes_max(400)
        .memory(256 << 10, 512)
        .run(|input| {
            let mut choices = Choices::new(input);
            let mut roster = Roster::new([1; 32], ip(1), [1; 32], 16);
            let keys: Vec<SigningKey> = (1..=4).map(device).collect();
            let may = |key: &SigningKey| Authorised { device_key: key.verifying_key().to_bytes(), lease: [2; 32] };
            let mut authorised: BTreeSet<Authorised> = keys[..2].iter().map(may).collect();
            let (mut admitted, mut now) = (0, NOW_S);
            for _ in 0..4 {
                if choices.below(3) == 0 {
                    authorised = keys[choices.below(4)..].iter().map(may).collect();
                    now += u64::from(choices.byte());
                }
                roster.authorise(authorised.clone());
                let said: Vec<SignedStatement> = (0..choices.below(6))
                    .map(|_| {
                        let mut one = statement(u8::try_from(choices.below(5)).unwrap());
                        one.wg_public = [u8::try_from(choices.below(5)).unwrap(); 32];
                        one.expires_at_unix_s = NOW_S + u64::from(choices.byte()) * 4;
                        one.order = [u8::from(choices.below(8) != 0); 32];
                        one.sign(&keys[choices.below(4)])
                    })
                    .collect();
                let verdicts = roster.replace(&said, now);
                assert_eq!(verdicts.len(), said.len());
                let peers: Vec<Peer> = roster.peers().copied().collect();
                let (ips, held): (BTreeSet<_>, BTreeSet<_>) =
                    peers.iter().map(|peer| (peer.ip, peer.wg_public)).unzip();
                assert_eq!((ips.len(), held.len()), (peers.len(), peers.len()), "an address or a key twice: {peers:?}");
                for peer in &peers {
                    assert!(peer.ip != ip(1) && peer.wg_public != [1; 32] && peer.expires_at_unix_s > now, "{peer:?}");
                }
                for (signed, verdict) in said.iter().zip(verdicts) {
                    if verdict.is_ok() {
                        let key = Authorised { device_key: signed.device_key(), lease: [2; 32] };
                        assert!(authorised.contains(&key) && signed.verify().unwrap().order == [1; 32]);
                        admitted += 1;
                    }
                }
            }
            if admitted > 0 { "admitted" } else { "refused" }
        });
    assert!(tally.of("admitted") > 0, "{tally:?}");
}

/// Two engines that know each other, and what they sent each other on the way there.
fn pair() -> (Engine, Engine, Vec<Vec<u8>>) {
    let (mut a, mut b) = (Engine::new(ip(1), [1; 32]), Engine::new(ip(2), [2; 32]));
    let peer = |engine: &Engine, host| Peer {
        ip: ip(host),
        wg_public: engine.public_key(),
        endpoint: endpoint(host),
        expires_at_unix_s: u64::MAX,
    };
    let (pa, pb) = (peer(&a, 1), peer(&b, 2));
    let keep = |wire: &RefCell<Vec<Vec<u8>>>, out: Emit<'_>| {
        if let Emit::Network(_, bytes) = out {
            wire.borrow_mut().push(bytes.to_vec());
        }
    };
    let (to_a, to_b) = (RefCell::new(vec![]), RefCell::new(vec![]));
    a.set_peers([&pb].into_iter(), &mut |out| keep(&to_b, out));
    b.set_peers([&pa].into_iter(), &mut |_| {});
    a.from_tunnel(&packet(1, 2, b"hello"), &mut |out| keep(&to_b, out));
    let mut seen = vec![];
    for _ in 0..6 {
        for datagram in to_b.take() {
            b.from_network(endpoint(1), &datagram, &mut |out| keep(&to_a, out));
            seen.push(datagram);
        }
        for datagram in to_a.take() {
            a.from_network(endpoint(2), &datagram, &mut |out| keep(&to_b, out));
            seen.push(datagram);
        }
    }
    (a, b, seen)
}

fn packet(from: u8, to: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend_from_slice(&u16::try_from(20 + payload.len()).unwrap().to_be_bytes());
    packet.extend_from_slice(&[0, 0, 0, 0, 64, 17, 0, 0]);
    packet.extend_from_slice(&ip(from).octets());
    packet.extend_from_slice(&ip(to).octets());
    packet.extend_from_slice(payload);
    packet
}

#[test]
fn datagrams_and_packets() {
    let (a, b, seen) = pair();
    assert!(seen.len() >= 3, "the two found each other");
    let engines = RefCell::new((a, b));
    let fuzz = seen.into_iter().fold(Fuzz::of("datagrams").seed(packet(2, 1, b"x")), Fuzz::seed);
    let tally = fuzz.bytes_max(4096).run(|input| {
        let (a, b) = &mut *engines.borrow_mut();
        let mut to_pod = 0;
        for (engine, own, other) in [(a, 1, 2), (b, 2, 1)] {
            for source in [endpoint(other), SocketAddr::from(([203, 0, 113, 9], 7))] {
                engine.from_network(source, input, &mut |out| {
                    if let Emit::Tunnel(packet) = out {
                        assert_eq!(addresses(packet), Some((ip(other), ip(own))), "a packet that is not the peer's");
                        to_pod += 1;
                    }
                });
            }
            // What a tenant writes leaves only from its own address, and only to a member.
            let leaves = addresses(input) == Some((ip(own), ip(other)));
            engine.from_tunnel(input, &mut |out| match out {
                Emit::Network(to, _) => assert!(leaves && to == endpoint(other), "{to}"),
                Emit::Tunnel(_) => panic!("a packet came back"),
            });
            engine.tick(NOW_S, &mut |_| {});
        }
        if to_pod > 0 { "delivered" } else { "dropped" }
    });
    assert!(tally.of("dropped") > 0, "{tally:?}");
}
