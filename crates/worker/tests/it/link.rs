//! Sessions over real connections: resume, garbage, other certificates, slow peers.

use atoll_api::link::envelope::Body;
use atoll_api::link::{FRAME_BYTES_MAX, PodReport, Refused, StopPod, UNACKED_MAX, Usage, encode};
use atoll_worker::link::Presence;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio_tungstenite::tungstenite::Message;

use crate::server::{DEADLINE, Server, down, received, up, welcome, within};

fn usage(n: u32) -> Body {
    Body::Usage(Usage { signed: n.to_le_bytes().to_vec() })
}

fn number(body: Option<Body>) -> u32 {
    let Some(Body::Usage(usage)) = body else { panic!("usage was sent, {body:?} came") };
    u32::from_le_bytes(usage.signed.try_into().unwrap())
}

fn stop(n: u32) -> Body {
    Body::StopPod(StopPod { command: format!("cmd_{n}"), pod: String::new(), reason: String::new() })
}

#[tokio::test]
async fn hello_proves_the_key_and_says_what_runs() {
    let server = Server::start().await;
    let report = PodReport { pod: "pod_x".into(), state: "running".into(), ..PodReport::default() };
    let presence = Presence { facts: b"{}".to_vec(), pods: vec![report.clone()], running: vec!["pod_x".into()] };
    let (_link, _presence) = server.link(presence);
    let (mut peer, hello) = server.greet(welcome(9, false, 0)).await;
    assert_eq!((peer.path.as_str(), hello.pods, hello.slot), ("/v1/link", vec![report], 3));
    assert_eq!((hello.resume_session, hello.facts.as_slice()), (0, b"{}".as_slice()));
    let beat = peer.next().await.unwrap();
    let Some(Body::Heartbeat(heartbeat)) = beat.body else { panic!("a heartbeat") };
    assert_eq!((beat.session, beat.seq, heartbeat.running), (9, 0, vec!["pod_x".to_owned()]));
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_over_a_broken_connection() {
    let server = Server::start().await;
    let (mut link, _presence) = server.link(Presence::default());
    let (mut peer, _) = server.greet(welcome(9, false, 0)).await;
    for n in 1..=5 {
        link.outbox.send(usage(n)).await.unwrap();
        assert_eq!(number(peer.next_numbered().await.body), n);
    }
    peer.send(stop(1)).await;
    assert_eq!(received(&mut link).await, stop(1));
    // The peer carried out three and dies without a word; meanwhile more is said.
    peer.ack(3).await;
    drop(peer);
    down(&mut link).await;
    link.outbox.send(usage(6)).await.unwrap();

    let mut peer = server.accept().await;
    let hello = peer.hello().await;
    assert_eq!((hello.resume_session, hello.resume_ack), (9, 1));
    peer.welcome(welcome(9, true, 3)).await;
    for n in 4..=6 {
        let envelope = peer.next_numbered().await;
        assert_eq!((envelope.seq, envelope.ack, number(envelope.body)), (u64::from(n), 1, n));
    }
    // What the peer sends twice arrives once.
    peer.send(stop(1)).await;
    peer.send(stop(2)).await;
    assert_eq!(received(&mut link).await, stop(2));
}

#[tokio::test]
async fn a_peer_without_memory_gets_a_new_session_with_all_that_is_left() {
    let server = Server::start().await;
    let (mut link, _presence) = server.link(Presence::default());
    let (mut peer, _) = server.greet(welcome(9, false, 0)).await;
    for n in 1..=3 {
        link.outbox.send(usage(n)).await.unwrap();
        peer.next_numbered().await;
    }
    drop(peer);
    down(&mut link).await;
    let (mut peer, hello) = server.greet(welcome(10, false, 0)).await;
    assert_eq!(hello.resume_session, 9);
    for n in 1..=3 {
        let envelope = peer.next_numbered().await;
        assert_eq!((envelope.session, envelope.seq, number(envelope.body)), (10, u64::from(n), n));
    }
    peer.send(stop(1)).await;
    assert_eq!(received(&mut link).await, stop(1), "numbers begin anew");
}

#[tokio::test]
async fn garbage_ends_the_connection_with_words_and_the_next_one_is_fine() {
    let long = vec![0; FRAME_BYTES_MAX + 1];
    let numbered = |seq| encode(&atoll_api::link::Envelope { session: 9, seq, ack: 0, body: Some(stop(1)) });
    let unacked = encode(&atoll_api::link::Envelope { session: 9, seq: 0, ack: 77, body: None });
    let cases: [(&str, Message); 6] = [
        ("garbage", Message::Binary(b"\xff\xff\xff\xff".to_vec().into())),
        ("garbage", Message::Text("hello".into())),
        ("more than", Message::Binary(long.into())),
        ("1 was expected", Message::Binary(numbered(5).into())),
        ("77 was acknowledged", Message::Binary(unacked.into())),
        ("session 8", Message::Binary(encode(&atoll_api::link::Envelope { session: 8, ..Default::default() }).into())),
    ];
    let server = Server::start().await;
    let (mut link, _presence) = server.link(Presence::default());
    for (words, message) in cases {
        let (mut peer, _) = server.greet(welcome(9, false, 0)).await;
        // The worker may hang up in the middle of an oversized frame.
        let _ = peer.socket.send(message).await;
        let reason = down(&mut link).await;
        assert!(reason.contains(words), "{reason:?} does not say {words:?}");
    }
    let (mut peer, _) = server.greet(welcome(9, false, 0)).await;
    peer.send(stop(1)).await;
    assert_eq!(received(&mut link).await, stop(1));
}

#[tokio::test]
async fn a_refusal_is_told_in_the_control_planes_words() {
    let server = Server::start().await;
    let (mut link, _presence) = server.link(Presence::default());
    let mut peer = server.accept().await;
    peer.hello().await;
    let (code, message) = ("link_not_on_chain".to_owned(), "register it first".to_owned());
    peer.send(Body::Refused(Refused { code, message })).await;
    let reason = down(&mut link).await;
    assert!(reason.contains("register it first") && reason.contains("link_not_on_chain"), "{reason}");
}

#[tokio::test]
async fn a_server_with_another_certificate_hears_nothing() {
    let server = Server::start().await;
    server.pin_another();
    let (mut link, _presence) = server.link(Presence::default());
    assert!(server.accept_any().await.is_none(), "the handshake fails");
    let reason = down(&mut link).await;
    assert!(reason.contains("does not show the pinned certificate"), "{reason}");
}

#[tokio::test]
async fn a_peer_that_never_acknowledges_is_left_with_a_bounded_queue() {
    let server = Server::start().await;
    let (mut link, _presence) = server.link(Presence::default());
    let (mut peer, _) = server.greet(welcome(9, false, 0)).await;
    up(&mut link).await;
    let outbox = link.outbox.clone();
    let sending = tokio::spawn(async move {
        let mut n = 0;
        while outbox.send(usage(n)).await.is_ok() && n < u32::try_from(UNACKED_MAX).unwrap() + 200 {
            n += 1;
        }
    });
    let mut last = 0;
    while let Some(envelope) = peer.next().await {
        last = last.max(envelope.seq);
    }
    assert!(last <= UNACKED_MAX as u64, "{last}");
    let reason = down(&mut link).await;
    assert!(reason.contains("not acknowledged"), "{reason}");
    let (mut peer, hello) = server.greet(welcome(10, false, 0)).await;
    assert_eq!(hello.resume_session, 0, "it starts over");
    peer.next_numbered().await;
    sending.abort();
}

#[tokio::test]
async fn a_peer_that_does_not_read_holds_up_nobody() {
    let server = Server::start().await;
    let (mut link, _presence) = server.link(Presence::default());
    let (peer, _) = server.greet(welcome(9, false, 0)).await;
    up(&mut link).await;
    // Far more than sockets and TLS buffer: writing blocks, taking does not, until the queue is full.
    for n in 0..UNACKED_MAX {
        let body = Body::Usage(Usage { signed: vec![n.to_le_bytes()[0]; 64 << 10] });
        within(link.outbox.send(body)).await.unwrap();
    }
    within(link.outbox.send(usage(1))).await.unwrap();
    let reason = down(&mut link).await;
    assert!(reason.contains("not acknowledged"), "{reason}");
    drop(peer);
}

#[tokio::test]
async fn a_silent_peer_is_given_up() {
    let server = Server::start().await;
    let (mut link, _presence) = server.link(Presence::default());
    let (mut peer, _) = server.greet(welcome(9, false, 0)).await;
    let reason = tokio::select! {
        reason = down(&mut link) => reason,
        // Reads, and never says anything.
        _ = async { while peer.socket.next().await.is_some() {} std::future::pending::<()>().await } => unreachable!(),
        () = tokio::time::sleep(DEADLINE) => panic!("the link trusts a dead peer"),
    };
    assert!(reason.contains("nothing came"), "{reason}");
}

#[tokio::test]
async fn a_worker_waits_for_a_server_that_is_not_there_yet() {
    let server = Server::start().await;
    let (mut link, _presence) = server.link(Presence::default());
    drop(server.accept_tcp().await);
    down(&mut link).await;
    link.outbox.send(usage(1)).await.unwrap();
    let (mut peer, _) = server.greet(welcome(9, false, 0)).await;
    assert_eq!(number(peer.next_numbered().await.body), 1);
}
