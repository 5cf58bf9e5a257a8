//! Who reaches whom.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use atoll_overlay::SignedStatement;

use super::support::{Host, TestPod, authorised, spec, until};

/// Tells every pod of a cluster about all of them.
async fn introduce(pods: &[&TestPod]) {
    let statements: Vec<SignedStatement> = pods.iter().map(|pod| pod.statement()).collect();
    for pod in pods {
        let verdicts = pod.pod.roster(&statements, None).await.unwrap();
        for (verdict, of) in verdicts.iter().zip(pods) {
            let own = of.spec.pod == pod.spec.pod;
            assert_eq!(verdict.ip.is_none(), own, "{verdict:?}");
        }
    }
}

async fn ping(from: &TestPod, to: &str) -> bool {
    from.sh(&format!("ping -c 1 -W 1 {to}")).await.0 == 0
}

async fn pings(from: &TestPod, to: &str) {
    until("a ping is answered", async || ping(from, to).await.then_some(())).await;
}

#[tokio::test]
async fn members_of_a_cluster_reach_each_other_and_nobody_else_does() {
    let host = Host::new();
    let cluster = |order, n| {
        let mut spec = spec(order, n);
        spec.authorised = [1, 2, 3].map(authorised).to_vec();
        spec
    };
    let one = host.start(cluster(7, 1)).await;
    let two = host.start(cluster(7, 2)).await;
    let three = host.start(cluster(7, 3)).await;
    let mut stranger = spec(8, 4);
    stranger.authorised = [1, 2, 3, 4].map(authorised).to_vec();
    let stranger = host.start(stranger).await;
    introduce(&[&one, &two, &three]).await;

    pings(&two, "10.77.0.1").await;
    pings(&three, "10.77.0.1").await;
    pings(&one, "10.77.0.3").await;
    // TCP, full-sized packets both ways, through another pod's shell.
    let get = "import socket; s = socket.create_connection((\"10.77.0.1\", 9000), 5); \
               s.sendall(b\"head -c 3000000 /dev/zero\"); s.shutdown(1); \
               print(sum(len(part) for part in iter(lambda: s.recv(65536), b\"\")))";
    assert_eq!(two.python(get).await, (0, "3000002\n".to_owned()));

    // Another order's pod knows everything that the control node could tell it, and is refused on both sides.
    let verdicts = stranger.pod.roster(&[one.statement()], None).await.unwrap();
    assert_eq!(verdicts[0].refused.as_deref(), Some("the statement is for another order"));
    let verdicts = one.pod.roster(&[two.statement(), three.statement(), stranger.statement()], None).await.unwrap();
    assert!(verdicts[2].refused.is_some());
    assert!(!ping(&stranger, "10.77.0.1").await);
    assert!(ping(&two, "10.77.0.1").await, "while members still reach it");

    // The host has no way in but the door. (Something on the way out may accept any connection; it is not the pod.)
    for ip in ["10.77.0.1", "127.0.0.1"] {
        let address: SocketAddr = format!("{ip}:9000").parse().unwrap();
        let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) else { continue };
        stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let mut answer = [0; 64];
        let count = stream.write_all(b"hostname").and_then(|()| stream.shutdown(std::net::Shutdown::Write));
        let count = count.and_then(|()| stream.read(&mut answer)).unwrap_or(0);
        assert_ne!(&answer[..count.min(2)], b"0\n", "the host reached {address}");
    }
    let peers = one.pod.status().await.unwrap().peers;
    assert!(peers.iter().any(|peer| peer.received_bytes > 1000 && peer.handshake_age_s.is_some()), "{peers:?}");
}

#[tokio::test]
async fn a_key_swapped_by_the_control_node_is_refused() {
    let host = Host::new();
    let with_keys = |n| {
        let mut spec = spec(9, n);
        spec.authorised = [1, 2].map(authorised).to_vec();
        spec
    };
    let one = host.start(with_keys(1)).await;
    let two = host.start(with_keys(2)).await;
    // A pod of the attacker's; its key would take the place of pod 1's.
    let rogue = host.start(spec(9, 66)).await;
    let mut forged = one.said();
    (forged.wg_public, forged.endpoint) = (rogue.status.wg_public.0, rogue.status.endpoint);

    let signed_by_another = forged.sign(&rogue.device);
    let mut edited = one.statement().to_bytes();
    // order 32, lease 32, address 4: the key begins at 68.
    edited[68..100].copy_from_slice(&rogue.status.wg_public.0);
    let edited = SignedStatement::from_bytes(&edited).unwrap();
    let verdicts = two.pod.roster(&[signed_by_another, edited], None).await.unwrap();
    let reasons: Vec<_> = verdicts.iter().filter_map(|verdict| verdict.refused.as_deref()).collect();
    let expected = [
        "the signing device key holds no such lease of this order",
        "the signature of a pod key statement does not match its device key",
    ];
    assert_eq!(reasons, expected);
    assert!(two.pod.status().await.unwrap().peers.is_empty());
    assert!(!ping(&two, "10.77.0.1").await);

    introduce(&[&one, &two]).await;
    pings(&two, "10.77.0.1").await;
    // A lease that is lost: its worker is told so, and the peer is gone at once.
    let members = [one.statement()];
    let verdicts = two.pod.roster(&members, Some(vec![authorised(2)])).await.unwrap();
    assert!(verdicts[0].refused.is_some());
    assert!(!ping(&two, "10.77.0.1").await);
}
