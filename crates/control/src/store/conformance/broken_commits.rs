//! Connections that break while a transaction commits: each operation counts once all the same.
//!
//! A proxy stands before the server and understands just enough to see a `COMMIT` pass. Whatever a caller does next, it
//! must find the database as if nothing had happened.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::Fresh;
use super::make::{
    NOW, accepted, api_key, chain_tx, command, event, id16, id32, job_now, later, pod, reservation, submission, usage,
    user, worker,
};
use crate::store::rows::{Beat, ChainTxState, CommandAnswer, Epoch, EpochLeaf, NetworkPin, PodChange};
use crate::store::{Store, open};
use atoll_domain::cluster::PodState;
use atoll_domain::id::NodeId;
use atoll_domain::key::{Digest, PublicKey};
use atoll_domain::meter::Observation;

/// What becomes of every second `COMMIT`.
#[derive(Clone, Copy, Debug)]
enum Break {
    Never,
    /// The server never hears of it.
    Before,
    /// The server has done it; its answer is lost.
    After,
    /// The server hears of it, and nobody waits for its answer.
    Between,
}

/// A proxy to the test server.
struct Proxy {
    port: u16,
    how: Arc<AtomicU8>,
    broken: Arc<AtomicU64>,
}

impl Proxy {
    /// Breaks the first commit, the third, and so on; or, from `first` 1, the second, the fourth.
    async fn start(server: (String, u16), first: u64) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (how, broken) = (Arc::new(AtomicU8::new(0)), Arc::new(AtomicU64::new(0)));
        let commits = Arc::new(AtomicU64::new(first));
        let (mode, counted) = (Arc::clone(&how), Arc::clone(&broken));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let upstream = TcpStream::connect((server.0.as_str(), server.1)).await.unwrap();
                tokio::spawn(carry(client, upstream, Arc::clone(&mode), Arc::clone(&counted), Arc::clone(&commits)));
            }
        });
        Self { port, how, broken }
    }

    fn set(&self, how: Break) {
        self.how.store(how as u8, Ordering::SeqCst);
    }
}

/// Carries bytes both ways until a commit is to be broken.
async fn carry(
    mut client: TcpStream,
    mut server: TcpStream,
    how: Arc<AtomicU8>,
    broken: Arc<AtomicU64>,
    commits: Arc<AtomicU64>,
) {
    let (mut asked, mut answered) = (vec![0; 65536], vec![0; 65536]);
    loop {
        tokio::select! {
            biased;
            read = client.read(&mut asked) => {
                let Ok(length @ 1..) = read else { return };
                let bytes = &asked[..length];
                let mode = how.load(Ordering::SeqCst);
                let is_commit = bytes.windows(7).any(|part| part == b"COMMIT\0");
                let breaks = is_commit && mode != 0 && commits.fetch_add(1, Ordering::SeqCst).is_multiple_of(2);
                if breaks {
                    broken.fetch_add(1, Ordering::SeqCst);
                    if mode == Break::Before as u8 {
                        return;
                    }
                }
                if server.write_all(bytes).await.is_err() {
                    return;
                }
                if breaks && mode == Break::After as u8 {
                    // The answer to a commit comes at once when it is done.
                    let Ok(1..) = server.read(&mut answered).await else { return };
                }
                if breaks {
                    return;
                }
            }
            read = server.read(&mut answered) => {
                let Ok(length @ 1..) = read else { return };
                if client.write_all(&answered[..length]).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Every writing operation of the trait, in an order in which each has something to do; what each of them answered.
async fn all_operations(store: &dyn Store) -> Vec<String> {
    let mut said = Vec::new();
    macro_rules! say {
        ($($operation:ident($($argument:expr),*);)*) => {
            $(said.push(format!("{}: {:?}", stringify!($operation), store.$operation($($argument),*).await));)*
        };
    }
    let (_, job) = accepted(store, 1).await;
    let (user, new) = (user(2), submission(2, &user(2)));
    let pods = [pod(1, &job, 0), pod(2, &job, 1)];
    let commands = [command(1, &pods[0]), command(2, &pods[1])];
    let answer = CommandAnswer { accepted: true, code: String::new(), message: String::new() };
    let running = PodChange { state: Some(PodState::Running), ..PodChange::default() };
    let lost = PodChange { state: Some(PodState::Lost), ..PodChange::default() };
    let observed = Observation { observed_ms: 5, last_seen: Some(NOW) };
    let transaction = chain_tx("fill/1", 1, Some(job.id));
    let leaf =
        |n| EpochLeaf { lease: PublicKey(id32(n)), device_seconds: n, until: 9, flags: 0, slots_root: Digest(id32(n)) };
    let epoch = Epoch { index: 1, root: Digest(id32(1)), leaves: vec![leaf(1), leaf(2)], created: NOW };
    let node = NodeId::from_random(id16(1));
    let silent = Beat { node, url: "https://n1".into(), count: 1, begun: vec![], ended: vec![] };
    let linked = Beat { begun: vec![(pods[1].worker, 7)], ..silent.clone() };
    let unlinked = Beat { ended: vec![(pods[1].worker, 7)], count: 2, ..silent };
    let pin = NetworkPin { genesis_hash: PublicKey(id32(1)), network_root: Digest(id32(2)) };
    say! {
        user_add(&user);
        user_add(&user);
        api_key_add(&api_key(1, &user));
        api_key_revoke(api_key(1, &user).id, NOW);
        nonce_use(&PublicKey(id32(3)), &[3; 16], NOW, later(99));
        nonce_use(&PublicKey(id32(3)), &[3; 16], NOW, later(99));
        job_accept(&new, NOW);
        job_accept(&new, NOW);
        job_change(job.id, 1, &job_now(), &[event("changed")]);
        job_change(job.id, 1, &job_now(), &[event("too late")]);
        events_add(job.id, &[event("a"), event("b")]);
        worker_put(&worker(1));
        devices_reserve(&[reservation(1, 1, 3, later(50))], NOW);
        devices_unreserve(job.id);
        pods_add(job.id, 2, &job_now(), &pods, &commands, &[event("pods")]);
        pods_add(job.id, 2, &job_now(), &pods, &commands, &[event("pods again")]);
        pod_change(pods[0].id, &running, &[event("runs")]);
        pod_change(pods[0].id, &lost, &[event("lost")]);
        pod_change(pods[0].id, &lost, &[event("lost again")]);
        usage_put(pods[1].id, &usage(&pods[1], 3, 1000));
        observations_put(&BTreeMap::from([(pods[1].id, observed)]));
        commands_add(&commands);
        command_answer(commands[0].worker, commands[0].id, &answer);
        chain_tx_put(&transaction);
        chain_tx_put(&chain_tx("fill/1", 2, Some(job.id)));
        chain_tx_state(&transaction.signature, ChainTxState::Confirmed, "", &[event("taken")]);
        chain_tx_gone(&transaction.signature);
        epoch_put(&epoch);
        epoch_put(&epoch);
        receipt_put(job.id, &Digest(id32(9)), "{}");
        node_beat(&linked);
        pod_lose(pods[1].id, None, &lost, &[event("given up")]);
        node_beat(&unlinked);
        pod_lose(pods[1].id, None, &lost, &[event("given up")]);
        nodes_drop(&[linked.node]);
        network_pin(&pin);
        beat();
    }
    said
}

/// All rows of all tables but those that say who wrote when.
async fn dump(url: &str) -> BTreeSet<String> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let tables = "select table_name::text from information_schema.tables where table_schema = 'public' \
                  and table_name not like 'atoll%'";
    let mut rows = BTreeSet::new();
    for table in client.query(tables, &[]).await.unwrap() {
        let table: String = table.get(0);
        // The number of a command or transaction may skip one that was rolled back.
        let but = if matches!(table.as_str(), "commands" | "chain_txs") { "number" } else { "" };
        let sql = format!("select (to_jsonb(t) - '{but}')::text from {table} t");
        for row in client.query(&sql, &[]).await.unwrap() {
            rows.insert(format!("{table} {}", row.get::<_, String>(0)));
        }
    }
    rows
}

fn through(url: &str, port: u16) -> (String, (String, u16)) {
    let (front, database) = url.rsplit_once('/').unwrap();
    let (front, server_port) = front.rsplit_once(':').unwrap();
    (format!("{front}:{port}/{database}"), ("127.0.0.1".into(), server_port.parse().unwrap()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_commit_whose_answer_is_lost_counts_once() {
    let plain = Fresh::postgres().await;
    let expected = all_operations(plain.open().await.as_ref()).await;
    let expected_rows = dump(&plain.url).await;
    assert!(expected_rows.len() > 20, "{expected_rows:?}");
    let all = [Break::Before, Break::After, Break::Between].map(|how| [(how, 0), (how, 1)]);
    for (how, first) in all.into_iter().flatten() {
        let at = Fresh::postgres().await;
        let proxy = Proxy::start(through(&at.url, 0).1, first).await;
        proxy.set(Break::Never);
        let store = open(&through(&at.url, proxy.port).0).await.unwrap();
        proxy.set(how);
        let said = all_operations(store.as_ref()).await;
        assert!(proxy.broken.load(Ordering::SeqCst) > 12, "{how:?}: too few commits were broken");
        for (said, expected) in said.iter().zip(&expected) {
            assert_eq!(said, expected, "{how:?}");
        }
        assert_eq!(dump(&at.url).await, expected_rows, "{how:?}");
    }
}
