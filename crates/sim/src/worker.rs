//! A real worker on a fake machine: started, killed, started again.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use atoll_domain::job::PackRef;
use atoll_domain::key::{Digest, PublicKey, SecretKey};
use atoll_domain::time::UnixMs;
use atoll_domain::worker::{Facts, Limits, SlotRef};
use atoll_life::Life;
use atoll_worker::chain_view::rpc_config;
use atoll_worker::host::SharedHost;
use atoll_worker::link::dial::{Dial, DialError, Dialled, Operator, OperatorName, Server};
use atoll_worker::outside::Outside;
use atoll_worker::run::{self, Parts};
use atoll_worker::supervisor::spec::LimitSpec;
use atoll_worker::world::Me;

use crate::chain::Chain;
use crate::clock::Clock;
use crate::genesis::DEVICES;
use crate::machine::{self, Machine};
use crate::net::{Net, PORT, Place};
use crate::node::KILLED_WITHIN;
use crate::random::Random;

/// How long whatever watches over a worker takes to start it again after it ended by itself.
const RESTART: Duration = Duration::from_secs(2);

/// The environment that all jobs run in.
#[must_use]
pub fn pack() -> PackRef {
    PackRef { name: "ray".to_owned(), sha256: Digest::of(b"pack") }
}

/// A worker and its machine. Clones are the same.
#[derive(Clone, Debug)]
pub struct Worker(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    machine: Machine,
    number: usize,
    device: [u8; 32],
    slot: SlotRef,
    network: Digest,
    /// Operators, each with the places of its nodes.
    operators: Vec<Vec<Place>>,
    net: Net,
    chain: Chain,
    life: Mutex<Option<Life>>,
}

/// What a worker is made of beside its machine.
#[derive(Debug)]
pub struct Identity {
    /// Its number.
    pub number: usize,
    /// The seed of its device key.
    pub device: [u8; 32],
    /// Its place on the chain.
    pub slot: SlotRef,
    /// The network that it joined.
    pub network: Digest,
    /// Operators, each with the places of its nodes.
    pub operators: Vec<Vec<Place>>,
}

/// A machine's clock and randomness, as a worker asks for them.
#[derive(Debug)]
struct Fake {
    clock: Clock,
    random: Random,
}

impl Outside for Fake {
    fn now(&self) -> UnixMs {
        self.clock.now()
    }

    fn fill(&self, bytes: &mut [u8]) {
        self.random.fill(bytes);
    }
}

/// The way to an operator's nodes.
#[derive(Debug)]
struct Way {
    net: Net,
    from: Place,
}

#[async_trait]
impl Dial for Way {
    async fn connect(&self, server: &Server) -> Result<Dialled, DialError> {
        let to: Place = server.host.as_str().into();
        match self.net.connect(&self.from, &to).await {
            Ok((stream, exporter)) => Ok((Box::new(stream), exporter)),
            Err(error) => Err(DialError::Unreachable(server.clone(), error)),
        }
    }
}

impl Worker {
    /// A worker that is not started.
    #[must_use]
    pub fn new(machine: Machine, identity: Identity, net: &Net, chain: &Chain) -> Self {
        let Identity { number, device, slot, network, operators } = identity;
        Self(Arc::new(Inner {
            machine,
            number,
            device,
            slot,
            network,
            operators,
            net: net.clone(),
            chain: chain.clone(),
            life: Mutex::new(None),
        }))
    }

    /// Its machine.
    #[must_use]
    pub fn machine(&self) -> &Machine {
        &self.0.machine
    }

    /// Where it is.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.0.machine.around().place
    }

    /// Its device key.
    #[must_use]
    pub fn device(&self) -> PublicKey {
        SecretKey::from_seed(&self.0.device).public()
    }

    fn life(&self) -> std::sync::MutexGuard<'_, Option<Life>> {
        self.0.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts it, if it does not run. When it ends by itself it is started again, as on a real machine.
    pub fn start(&self) {
        let life = Life::default();
        if self.life().as_ref().is_some_and(|life| !life.is_ended()) {
            return;
        }
        *self.life() = Some(life.clone());
        self.0.machine.worker(true);
        let worker = self.clone();
        tokio::spawn(async move {
            let again = async {
                loop {
                    let ended = match worker.parts() {
                        Ok(parts) => Box::pin(run::with(parts)).await,
                        Err(error) => Err(error),
                    };
                    let why = ended.map_or_else(|error| format!("{error:#}"), |()| "no reason".to_owned());
                    worker.0.machine.around().trace.line(worker.place(), &format!("the worker ended: {why}"));
                    tokio::time::sleep(RESTART).await;
                }
            };
            life.cover(again).await
        });
    }

    /// Kills it, wherever it stands. Its pods go on.
    pub async fn kill(&self) {
        let life = self.life().take();
        self.0.machine.worker(false);
        if let Some(life) = life {
            life.end().await;
        }
    }

    /// Kills it when its tasks have been polled so often.
    pub async fn kill_after(&self, polls: u64) {
        let life = self.life().clone();
        if let Some(life) = life {
            life.end_after(polls);
            let _ = tokio::time::timeout(KILLED_WITHIN, life.ended()).await;
        }
        self.kill().await;
    }

    /// The machine loses power: the worker and its pods are gone, and nobody is told.
    pub async fn lose_power(&self) {
        self.0.net.darken(self.place());
        self.kill().await;
        self.0.machine.lose_power().await;
    }

    /// The machine is on again.
    pub fn power_up(&self) {
        self.0.net.light(self.place());
        self.start();
    }

    fn parts(&self) -> anyhow::Result<Parts> {
        let around = self.0.machine.around();
        let outside = Arc::new(Fake { clock: around.clock.clone(), random: around.random.clone() });
        let mut seed = [0; 8];
        outside.fill(&mut seed);
        let rpc = self.0.chain.rpc(self.place(), |url| rpc_config(url, u64::from_le_bytes(seed)));
        let device = SecretKey::from_seed(&self.0.device);
        let operator = |(number, nodes): (usize, &Vec<Place>)| {
            let servers = nodes.iter().map(|node| Server { host: node.to_string(), port: PORT }).collect();
            let way = Way { net: self.0.net.clone(), from: Arc::clone(self.place()) };
            Operator::new(OperatorName(format!("operator-{number}")), servers, Arc::new(way))
        };
        let operators = self.0.operators.iter().enumerate().map(operator).collect::<Result<_, _>>()?;
        let me = Me {
            public: device.public(),
            device,
            slot: self.0.slot,
            network: self.0.network,
            announce: IpAddr::V4(machine::address(self.0.number)),
            packs: vec![(pack(), "/pack".into())],
            sdk: "/sdk".into(),
            socket: "/worker.sock".into(),
            device_share: share(),
            root: false,
            tun_device: "/tun".into(),
            bwrap: "/bwrap".into(),
            cgroup: None,
        };
        let host: SharedHost = Arc::new(self.0.machine.clone());
        Ok(Parts { me, facts: facts(), host, operators, rpc, outside })
    }
}

fn share() -> LimitSpec {
    LimitSpec {
        memory_bytes: 2 << 30,
        cpu_milli: 1000,
        pids: 256,
        disk_bytes: 1 << 30,
        shm_bytes: 1 << 28,
        tmp_bytes: 1 << 28,
        output_bytes: 1 << 20,
    }
}

fn facts() -> Facts {
    Facts {
        cpu: "simulated".to_owned(),
        cpu_count: 8,
        memory_bytes: 16 << 30,
        disk_free_bytes: 100 << 30,
        disk_write_mib_s: 500,
        model: "cpu".to_owned(),
        devices: u16::from(DEVICES),
        packs: vec![pack()],
        limits: Limits::Enforced,
    }
}
