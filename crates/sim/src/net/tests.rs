use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout};

use super::*;
use crate::clock::TrueTime;

const LONG: Duration = Duration::from_secs(60);

struct Two {
    net: Net,
    a: Place,
    b: Place,
    listener: Listener,
}

fn two() -> Two {
    let trace = Trace::new(&TrueTime::begin(), crate::trace::Telling::default());
    let net = Net::new(Random::new(1, "net"), &trace);
    let (a, b): (Place, Place) = ("a".into(), "b".into());
    let listener = net.listen(&b);
    Two { net, a, b, listener }
}

impl Two {
    async fn connected(&mut self) -> (Stream, Stream) {
        let (near, exporter) = self.net.connect(&self.a, &self.b).await.unwrap();
        let incoming = self.listener.accept().await.unwrap();
        assert_eq!((incoming.exporter, incoming.from), (exporter, self.net.address(&self.a)));
        (near, incoming.stream)
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_arrive_in_order_and_late_and_then_the_end() {
    let mut two = two();
    let (mut near, mut far) = two.connected().await;
    let sent = Instant::now();
    for n in 0..100_u8 {
        near.write_all(&[n; 100]).await.unwrap();
    }
    drop(near);
    let mut read = Vec::new();
    far.read_to_end(&mut read).await.unwrap();
    assert!(read.len() == 10_000 && read.is_sorted());
    assert!(sent.elapsed() >= Weather::default().latency);
    // Nobody reads there any more.
    assert_eq!(far.write_all(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

#[tokio::test(start_paused = true)]
async fn whoever_does_not_read_holds_up_the_writer() {
    let mut two = two();
    let (mut near, mut far) = two.connected().await;
    assert!(timeout(LONG, near.write_all(&vec![0; 1 << 20])).await.is_err());
    let reading = tokio::spawn(async move { far.read_to_end(&mut Vec::new()).await });
    near.write_all(&vec![0; 1 << 20]).await.unwrap();
    drop(near);
    assert!(reading.await.unwrap().unwrap() >= 1 << 20);
}

#[tokio::test(start_paused = true)]
async fn a_cut_route_is_silent_and_healed_it_delivers() {
    let mut two = two();
    let (mut near, mut far) = two.connected().await;
    two.net.cut(&two.a, &two.b);
    near.write_all(b"hello").await.unwrap();
    let mut buffer = [0; 5];
    assert!(timeout(LONG, far.read_exact(&mut buffer)).await.is_err());
    // The other direction is as it was.
    far.write_all(b"still").await.unwrap();
    timeout(LONG, near.read_exact(&mut buffer)).await.unwrap().unwrap();
    assert!(timeout(LONG, two.net.connect(&two.a, &two.b)).await.is_err());
    two.net.heal(&two.a, &two.b);
    timeout(LONG, far.read_exact(&mut buffer)).await.unwrap().unwrap();
    assert_eq!(&buffer, b"hello");
}

#[tokio::test(start_paused = true)]
async fn a_reset_wakes_who_waits() {
    let mut two = two();
    let (near, mut far) = two.connected().await;
    let waiting = tokio::spawn(async move { far.read(&mut [0; 8]).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    two.net.reset(&two.b, &two.a);
    assert_eq!(timeout(LONG, waiting).await.unwrap().unwrap().unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    drop(near);
}

#[tokio::test(start_paused = true)]
async fn a_machine_without_power_says_nothing_until_it_is_back() {
    let mut two = two();
    let (mut near, far) = two.connected().await;
    two.net.darken(&two.b);
    drop(far);
    assert!(timeout(LONG, near.read(&mut [0; 8])).await.is_err(), "half open");
    near.write_all(b"into the void").await.unwrap();
    two.net.light(&two.b);
    assert_eq!(near.read(&mut [0; 8]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test(start_paused = true)]
async fn nobody_listening_is_a_refusal_and_a_new_listener_takes_over() {
    let mut two = two();
    let newer = two.net.listen(&two.b);
    assert!(two.listener.accept().await.is_none());
    let Two { net, a, b, listener } = two;
    drop(listener);
    net.connect(&a, &b).await.unwrap();
    drop(newer);
    assert_eq!(net.connect(&a, &b).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
}

#[tokio::test(start_paused = true)]
async fn requests_are_lost_doubled_and_overtaken() {
    let two = two();
    let weather = Weather { lost_per_mille: 300, doubled_per_mille: 300, jitter: LONG, ..Weather::default() };
    two.net.weather(weather);
    let (mut lost, mut doubled, mut waits) = (0, 0, Vec::new());
    for _ in 0..100 {
        let began = Instant::now();
        match timeout(2 * LONG, two.net.leg(&two.a, &two.b)).await {
            Ok(arrival) => {
                doubled += u32::from(arrival == Arrival::Twice);
                waits.push(began.elapsed());
            }
            Err(_) => lost += 1,
        }
    }
    assert!((15..45).contains(&lost) && (10..40).contains(&doubled), "{lost} {doubled}");
    assert!(!waits.is_sorted());
}
