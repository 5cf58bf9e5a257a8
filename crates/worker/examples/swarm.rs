//! Many workers in one process, for benches: the real link over real TLS, without a machine behind it.
//!
//! `swarm register` puts their device keys on the chain, a page of 1,024 slots for each supplier, five registrations a
//! transaction. `swarm link` links them all and keeps them linked; it prints one JSON line four times a second, and ends
//! with its standard input.
#![allow(clippy::disallowed_methods, reason = "a bench measures the real world")]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use atoll_chain::market::data::RegisterWorker;
use atoll_chain::market::layout::{CLASS_SAMPLED, SLOTS_MAX};
use atoll_chain::market::{address, instruction};
use atoll_chain::{Keypair, Rpc, RpcConfig};
use atoll_domain::key::{PublicKey, SecretKey, sha256};
use atoll_domain::worker::{Facts, Limits, SlotRef};
use atoll_worker::link::dial::{Dial, DialError, Dialled, Operator, OperatorName, Server};
use atoll_worker::link::tls::Tls;
use atoll_worker::link::{Identity, Later, LinkEvent, Presence};
use atoll_worker::outside::Machine;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::TcpSocket;
use tokio::sync::watch;

/// Registrations that fit into one transaction of 1,232 bytes.
const REGISTRATIONS: usize = 5;
/// What each supplier gets: a page of 1,024 slots and as many device accounts keep some 3 SOL.
const SUPPLIER_LAMPORTS: u64 = 10_000_000_000;
/// How long one transaction may take.
const TRANSACTION_MAX: Duration = Duration::from_secs(60);
/// Between two lines.
const REPORT_EVERY: Duration = Duration::from_millis(250);

fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let verb = words.next().unwrap_or_default();
    let mut flags = BTreeMap::<String, Vec<String>>::new();
    while let Some(flag) = words.next() {
        let value = words.next().with_context(|| format!("{flag} needs a value"))?;
        flags.entry(flag).or_default().push(value);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    match verb.as_str() {
        "register" => runtime.block_on(register(&one(&flags, "--rpc")?, count(&flags)?)),
        "link" => runtime.block_on(link(&one(&flags, "--ca")?, &flags["--server"], count(&flags)?)),
        _ => bail!("swarm register --rpc URL --count N | swarm link --ca FILE --server URL [--server URL] --count N"),
    }
}

fn one(flags: &BTreeMap<String, Vec<String>>, name: &str) -> Result<String> {
    flags.get(name).and_then(|values| values.first()).cloned().with_context(|| format!("{name} is missing"))
}

fn count(flags: &BTreeMap<String, Vec<String>>) -> Result<usize> {
    Ok(one(flags, "--count")?.parse()?)
}

/// The same keys at every run: a bench registers once and links often.
fn seed(what: &str, n: usize) -> [u8; 32] {
    sha256(&[b"atoll/swarm/1\0", what.as_bytes(), &n.to_le_bytes()])
}

fn supplier(page: usize) -> Keypair {
    Keypair::from_seed(&seed("supplier", page))
}

async fn register(rpc: &str, count: usize) -> Result<()> {
    let rpc = Rpc::new(RpcConfig::new(rpc, 1))?;
    let started = Instant::now();
    let pages = (0..count.div_ceil(SLOTS_MAX)).map(|page| {
        let devices: Vec<usize> = (page * SLOTS_MAX..count.min((page + 1) * SLOTS_MAX)).collect();
        register_page(rpc.clone(), page, devices)
    });
    let transactions: usize = futures_util::future::try_join_all(pages).await?.into_iter().sum();
    println!("{}", serde_json::json!({ "transactions": transactions, "seconds": started.elapsed().as_secs_f64() }));
    Ok(())
}

/// Fills one supplier's first page, in order; gives how many transactions that took.
async fn register_page(rpc: Rpc, page: usize, devices: Vec<usize>) -> Result<usize> {
    let supplier = supplier(page);
    rpc.airdrop(&supplier.address(), SUPPLIER_LAMPORTS).await?;
    let worker = RegisterWorker {
        page_no: 0,
        model: 1,
        region: 0,
        devices: 1,
        class: CLASS_SAMPLED,
        ask_uusd: 50_000,
        lease_s_max: 0,
    };
    for some in devices.chunks(REGISTRATIONS) {
        let keys: Vec<Keypair> = some.iter().map(|n| Keypair::from_seed(&seed("device", *n))).collect();
        let register = |key: &Keypair| instruction::register_worker(supplier.address(), key.address(), &worker);
        let instructions: Vec<_> = keys.iter().map(register).collect();
        let signers: Vec<&Keypair> = keys.iter().collect();
        rpc.execute(&instructions, &supplier, &signers, TRANSACTION_MAX).await?;
    }
    Ok(devices.len().div_ceil(REGISTRATIONS))
}

/// Dials from addresses of its own: a node gives one address a quarter of its places.
#[derive(Debug)]
struct FromLoopback {
    tls: Tls,
    dialled: AtomicU64,
}

#[async_trait::async_trait]
impl Dial for FromLoopback {
    async fn connect(&self, server: &Server) -> Result<Dialled, DialError> {
        let unreachable = |error| DialError::Unreachable(server.clone(), error);
        // 127.0.0.2 to 127.0.0.201.
        let host = 2 + u8::try_from(self.dialled.fetch_add(1, Ordering::Relaxed) % 200).unwrap_or_default();
        let socket = TcpSocket::new_v4().map_err(unreachable)?;
        socket.bind(SocketAddr::from(([127, 0, 0, host], 0))).map_err(unreachable)?;
        let tcp = socket.connect(SocketAddr::from(([127, 0, 0, 1], server.port))).await.map_err(unreachable)?;
        self.tls.over(tcp, server).await
    }
}

/// What happened on all links together.
#[derive(Default)]
struct Tally {
    linked: AtomicU64,
    ups: AtomicU64,
    downs: AtomicU64,
    bodies: AtomicU64,
}

async fn link(ca: &str, servers: &[String], count: usize) -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let servers: Vec<Server> = servers.iter().map(|server| server.parse()).collect::<Result<_, _>>()?;
    let dial = Arc::new(FromLoopback { tls: Tls::new(ca.as_ref())?, dialled: AtomicU64::new(0) });
    let (_presence, shown) = watch::channel(Presence { facts: serde_json::to_vec(&facts())?, ..Presence::default() });
    let tally = Arc::new(Tally::default());
    for n in 0..count {
        let page = address::page(&supplier(n / SLOTS_MAX).address(), 0);
        let identity = Identity {
            device: Arc::new(SecretKey::from_seed(&seed("device", n))),
            slot: SlotRef { page: PublicKey(page.0), slot: u16::try_from(n % SLOTS_MAX)? },
            advertise: "127.0.0.1".into(),
        };
        let operator = Operator::new(OperatorName(String::new()), servers.clone(), dial.clone())?;
        let Later { link, keeper } = Later::new();
        atoll_life::spawn(watch_link(link, Arc::clone(&tally)));
        keeper.start(operator, identity, Arc::new(Machine), shown.clone());
    }
    report(&tally).await
}

async fn watch_link(mut link: atoll_worker::link::Link, tally: Arc<Tally>) {
    let mut up = false;
    while let Some(event) = link.events.recv().await {
        match event {
            LinkEvent::Up { .. } => {
                up = true;
                tally.linked.fetch_add(1, Ordering::Relaxed);
                tally.ups.fetch_add(1, Ordering::Relaxed);
            }
            LinkEvent::Down { .. } => {
                if std::mem::take(&mut up) {
                    tally.linked.fetch_sub(1, Ordering::Relaxed);
                }
                tally.downs.fetch_add(1, Ordering::Relaxed);
            }
            LinkEvent::Received(_) => drop(tally.bodies.fetch_add(1, Ordering::Relaxed)),
        }
    }
}

/// A line now and then until nobody wants more.
async fn report(tally: &Tally) -> Result<()> {
    std::thread::spawn(|| {
        // Whatever it says: what matters is that it ends.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(0);
    });
    let mut every = tokio::time::interval(REPORT_EVERY);
    loop {
        every.tick().await;
        let at = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let line = serde_json::json!({
            "linked": at(&tally.linked), "ups": at(&tally.ups), "downs": at(&tally.downs), "bodies": at(&tally.bodies),
        });
        let mut out = std::io::stdout().lock();
        writeln!(out, "{line}").and_then(|()| out.flush())?;
    }
}

fn facts() -> Facts {
    Facts {
        cpu: "swarm".into(),
        cpu_count: 2,
        memory_bytes: 8 << 30,
        disk_free_bytes: 64 << 30,
        disk_write_mib_s: 500,
        model: "cpu".into(),
        devices: 1,
        packs: vec![],
        limits: Limits::Enforced,
    }
}
