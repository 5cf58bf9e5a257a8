//! A whole world: made from its options, run to its end, judged.

use std::cell::RefCell;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use atoll_chain::RpcConfig;
use atoll_chain::market::Market;
use atoll_control::store::Store;
use atoll_domain::key::{Digest, PublicKey};
use object_store::memory::InMemory;

use crate::chain::{Chain, Watcher};
use crate::clock::{Clock, Error, TrueTime};
use crate::disk::Disk;
use crate::faults;
use crate::genesis::{self, DEVICES, People};
use crate::laws::{self, Laws};
use crate::machine::{Machine, Surroundings};
use crate::net::{Net, Place};
use crate::node::{self, Node};
use crate::program::Clusters;
use crate::random::Random;
use crate::renter::{self, Contact, Known, Placed, Renter, Wish};
use crate::seed::Options;
use crate::store::{Database, Tamper};
use crate::trace::{Telling, Trace};
use crate::truth::Truth;
use crate::votes::Votes;
use crate::worker::{Identity, Worker};

/// How long after faults stop everything must have come to its end: the control plane gives a cluster ten minutes to come
/// up, and its leases close some epochs later. Most worlds need a tenth of it.
const LIVENESS: Duration = Duration::from_secs(720);
/// How often the laws are looked at when no transaction comes.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A world. Clones are the same.
#[derive(Clone, Debug)]
pub struct World {
    /// True time.
    pub time: TrueTime,
    /// What happened.
    pub trace: Trace,
    /// The network.
    pub net: Net,
    /// The chain.
    pub chain: Chain,
    /// What attestors signed.
    pub votes: Votes,
    /// Control nodes.
    pub nodes: Vec<Node>,
    /// Their databases.
    pub databases: Vec<Database>,
    /// Workers.
    pub workers: Vec<Worker>,
    /// The renter.
    pub renter: Renter,
    /// The laws.
    pub laws: Laws,
}

/// Bugs that are planted into a world, to see that it finds them.
#[derive(Default)]
pub struct Planted {
    /// In every node's way to its store.
    pub tamper: Option<Arc<dyn Tamper>>,
    /// On the chain, after each transaction and before the laws look.
    pub on_chain: Option<Watcher>,
    /// Supervisors end no pod by themselves.
    pub unguarded: bool,
    /// Each operator thinks that it alone has the attestor key, and all of them have it.
    pub no_turns: bool,
    /// What an operator keeps beside its store is gone with each process of its nodes.
    pub notes_lost: bool,
}

impl std::fmt::Debug for Planted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Planted").field("tamper", &self.tamper).finish_non_exhaustive()
    }
}

/// How a world ended.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The seed.
    pub seed: u64,
    /// Of everything that happened.
    pub hash: u64,
    /// Events in the hash.
    pub events: u64,
    /// Transactions sent to the chain.
    pub transactions: u64,
    /// Epochs that an attestor's key voted on.
    pub votes: usize,
    /// Base units that suppliers were paid.
    pub paid: u64,
    /// What was broken; nothing: all is well.
    pub broken: Vec<String>,
    /// What the renter saw in the end, a line a job.
    pub jobs: Vec<String>,
    /// The timeline.
    pub timeline: Vec<String>,
    /// How long the world ran.
    pub lasted: Duration,
}

thread_local! {
    /// Panics of this thread's world.
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Has panics of tasks noted instead of printed. Once a process.
pub fn note_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.with_borrow_mut(|noted| noted.push(format!("panic: {panic}")));
            before(panic);
        }));
    });
}

/// Runs a world in a runtime of its own, on this thread.
///
/// # Panics
/// When the operating system gives no runtime.
#[must_use]
pub fn run(options: &Options, planted: Planted, telling: Telling) -> Verdict {
    note_panics();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime without I/O needs nothing of the system");
    let verdict = runtime.block_on(async {
        match World::make(options, planted, telling).await {
            Ok(world) => world.live(options).await,
            Err(error) => Verdict {
                seed: options.seed,
                hash: 0,
                events: 0,
                transactions: 0,
                votes: 0,
                paid: 0,
                broken: vec![format!("the world could not be made: {error:#}")],
                jobs: Vec::new(),
                timeline: Vec::new(),
                lasted: Duration::ZERO,
            },
        }
    });
    drop(runtime);
    verdict
}

/// What every part is made with.
struct Maker<'a> {
    options: &'a Options,
    time: TrueTime,
    trace: Trace,
    net: Net,
    chain: Chain,
    votes: Votes,
    people: People,
}

impl Maker<'_> {
    fn random(&self, purpose: &str) -> Random {
        Random::new(self.options.seed, purpose)
    }

    fn clock(&self, of: &str) -> Clock {
        Clock::new(&self.time, self.options.clock_error(&self.random(&format!("clock {of}"))))
    }

    fn disk(&self, of: &str) -> Disk {
        Disk::new(self.random(&format!("disk {of}")), &self.trace)
    }

    fn place(&self, name: String) -> Place {
        let place: Place = name.into();
        let _ = self.net.address(&place);
        place
    }

    /// The nodes and the database of an operator. Only the first has more than one node.
    fn operator(&self, operator: usize, planted: &Planted) -> (Vec<Node>, Database) {
        let (name, database, count) = match operator {
            0 => ("node", "database".to_owned(), self.options.nodes),
            _ => ("other-node", format!("database-{operator}"), 1),
        };
        let shared = count > 1;
        let places: Vec<Place> = (0..count).map(|n| self.place(format!("{name}-{n}"))).collect();
        let at = if shared { self.place(database.clone()) } else { Arc::clone(&places[0]) };
        let database = Database::new(&at, self.disk(&database), self.clock(&database));
        let objects = Arc::new(InMemory::new());
        let secret = 7 + u8::try_from(operator).expect("few operators");
        let keys = [*self.people.nodes[operator].seed(), *self.people.attestor.seed(), [secret; 32]];
        let operators = self.options.operators;
        let node = |place: &Place| {
            Node::new(node::Inner {
                place: Arc::clone(place),
                clock: self.clock(place),
                random: self.random(place),
                net: self.net.clone(),
                chain: self.chain.clone(),
                trace: self.trace.clone(),
                database: database.clone(),
                objects: Arc::clone(&objects),
                keys,
                tamper: planted.tamper.clone(),
                notes_lost: planted.notes_lost,
                operator,
                turn: (operators > 1 && !planted.no_turns).then(|| format!("{operator}/{operators}")),
                gone: AtomicBool::new(false),
                own_database: !shared,
                life: Mutex::default(),
                control: Mutex::default(),
            })
        };
        (places.iter().map(node).collect(), database.clone())
    }

    fn workers(&self, network: Digest, nodes: &[Node], truth: &Truth, guarded: bool) -> Vec<Worker> {
        let clusters = Clusters::default();
        let operators: Vec<Vec<Place>> = (0..self.options.operators).map(|n| places_of(nodes, n)).collect();
        let worker = |number: usize| {
            let name = format!("worker-{number}");
            let machine = Machine::new(Surroundings {
                disk: self.disk(&name),
                clock: self.clock(&name),
                random: self.random(&name),
                trace: self.trace.clone(),
                truth: truth.clone(),
                clusters: clusters.clone(),
                guarded,
                place: self.place(name),
            });
            let identity = Identity {
                number,
                device: *self.people.devices[number].seed(),
                slot: self.people.slot(number),
                network,
                operators: operators.clone(),
            };
            Worker::new(machine, identity, &self.net, &self.chain)
        };
        (0..self.options.workers).map(worker).collect()
    }

    fn renter(&self, operators: Vec<Contact>) -> Renter {
        let place = self.place("renter".to_owned());
        let seed = self.random("renter rpc").bits();
        Renter::new(renter::Inner {
            rpc: self.chain.rpc(&place, |url| RpcConfig::new(url, seed)),
            net: self.net.clone(),
            clock: Clock::new(&self.time, Error::default()),
            random: self.random("renter"),
            trace: self.trace.clone(),
            wallet: atoll_chain::Keypair::from_seed(&self.people.renter.seed()),
            mint: self.people.mint.address(),
            source: self.people.tokens(&self.people.renter),
            operators,
            placed: Mutex::default(),
            broken: Mutex::default(),
            votes: self.votes.clone(),
            forgetful: Mutex::default(),
            place,
        })
    }

    /// The renter's key to the API, made as an operator makes it.
    async fn api_key(&self, database: &Database) -> anyhow::Result<String> {
        database.start()?;
        let store: Arc<dyn Store> = database.store()?;
        let random = self.random("api key");
        let now = self.time.now();
        let wallet = PublicKey(self.people.renter.address().0);
        let mut fill = |bytes: &mut [u8]| random.fill(bytes);
        Ok(atoll_control::admin::key_create(&*store, "renter", wallet, now, &mut fill).await?)
    }
}

fn places_of(nodes: &[Node], operator: usize) -> Vec<Place> {
    nodes.iter().filter(|node| node.operator() == operator).map(|node| Arc::clone(node.place())).collect()
}

impl World {
    /// The database that several nodes share, if any.
    #[must_use]
    pub fn shared_database(&self) -> Option<&Database> {
        self.databases.iter().find(|it| self.nodes.iter().all(|node| node.place() != it.place()))
    }

    /// Whether an operator is gone for good.
    #[must_use]
    pub fn is_gone(&self, operator: usize) -> bool {
        self.nodes.iter().any(|node| node.operator() == operator && node.is_gone())
    }

    /// Whether a wish has come to its end. Of an operator that is gone nobody says so but the chain, where the order is
    /// closed then.
    fn is_over(&self, placed: &Placed) -> bool {
        match &placed.known {
            Known::Refused(_) => true,
            Known::Acknowledged(_, state, _) if state.is_final() => true,
            _ => self.is_gone(placed.operator) && self.chain.with(|engine| !laws::is_open(engine, &placed.order)),
        }
    }

    /// Makes a world in which everything has just been started.
    ///
    /// # Errors
    /// What a part needs and does not get: program and simulation do not fit.
    pub async fn make(options: &Options, planted: Planted, telling: Telling) -> anyhow::Result<Self> {
        let people = People::new(options.workers);
        // The set-up asks at once, so true time begins after it.
        let prepared = genesis::chain(&people, Arc::new(Clock::new(&TrueTime::begin(), Error::default()))).await?;
        let time = TrueTime::begin();
        let trace = Trace::new(&time, telling);
        let net = Net::new(Random::new(options.seed, "net"), &trace);
        let mut engine = prepared.fork(Arc::new(Clock::new(&time, Error::default())));
        let truth = Truth::new(&time);
        let votes = Votes::default();
        let laws = Laws::new(&people, &mut engine, &truth, &votes);
        let chain = Chain::new(engine, options.finality, &net, &votes, &trace);
        let maker = Maker {
            options,
            time: time.clone(),
            trace: trace.clone(),
            net: net.clone(),
            chain: chain.clone(),
            votes: votes.clone(),
            people,
        };
        let (mut nodes, mut databases, mut contacts) = (Vec::new(), Vec::new(), Vec::new());
        for operator in 0..options.operators {
            let (its_nodes, database) = maker.operator(operator, &planted);
            let api_key = maker.api_key(&database).await?;
            contacts.push(Contact { nodes: places_of(&its_nodes, operator), api_key });
            nodes.extend(its_nodes);
            databases.push(database);
        }
        let place: Place = "judge".into();
        let market = Market::new(chain.rpc(&place, |url| RpcConfig::new(url, 1)));
        let network = Digest(market.config().await?.value.header.network_root);
        let workers = maker.workers(network, &nodes, &truth, !planted.unguarded);
        let renter = maker.renter(contacts);
        let (watching, on_chain) = (laws.clone(), planted.on_chain);
        chain.watch(Box::new(move |engine| {
            if let Some(change) = &on_chain {
                change(engine);
            }
            watching.check(engine);
        }));
        Ok(Self { time, trace, net, chain, votes, nodes, databases, workers, renter, laws })
    }

    /// Starts a shared database, which may take more than one try.
    pub fn start_database(&self, database: &Database) {
        if let Err(error) = database.start() {
            self.trace.line("database", &format!("does not start: {error}"));
        }
    }

    /// Lives from the beginning to the end.
    pub async fn live(self, options: &Options) -> Verdict {
        self.nodes.iter().for_each(Node::start);
        self.workers.iter().for_each(Worker::start);
        let wishes = Random::new(options.seed, "wishes");
        let devices = options.workers as u64 * u64::from(DEVICES);
        for n in 0..options.jobs {
            let drawn = Wish::draw(&wishes, options.quiet_at / 2, devices);
            let wish = options.wishes.get(n).copied().unwrap_or(drawn);
            tokio::spawn(self.renter.clone().carry_out(wish));
        }
        let faults = faults::carry_out(&self, options);
        // A broken law ends the world.
        let judged = self.judge(options);
        tokio::pin!(faults, judged);
        tokio::select! {
            biased;
            () = &mut judged => {}
            () = &mut faults => judged.await,
        }
        self.verdict(options)
    }

    /// Looks on until everything has come to its end, or should have.
    async fn judge(&self, options: &Options) {
        let latest = options.quiet_at + LIVENESS;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            self.chain.with(|engine| self.laws.check(engine));
            self.renter.broken().into_iter().for_each(|what| self.laws.break_(what));
            PANICS.with_borrow_mut(std::mem::take).into_iter().for_each(|panic| self.laws.break_(panic));
            if !self.laws.broken().is_empty() {
                return;
            }
            let elapsed = self.time.elapsed();
            if elapsed > options.quiet_at && elapsed >= options.length && self.is_settled(options) {
                return self.chain.with(|engine| self.laws.check_end(engine));
            }
            if elapsed > latest.max(options.length) {
                return self.unsettled(options);
            }
        }
    }

    /// Whether nothing is left to be done.
    fn is_settled(&self, options: &Options) -> bool {
        let placed = self.renter.placed();
        placed.len() == options.jobs && placed.iter().all(|it| self.is_over(it)) && self.unlinked().is_empty()
    }

    /// Workers that an operator has no link to, by its number.
    fn unlinked(&self) -> Vec<(usize, Place)> {
        let linked = |operator: usize, worker: &Worker| {
            let id = atoll_domain::id::WorkerId::of_device_key(&worker.device());
            let mut nodes = self.nodes.iter().filter(|node| node.operator() == operator);
            nodes.any(|node| node.control().is_some_and(|control| control.links.is_linked(id)))
        };
        let there = (0..self.databases.len()).filter(|operator| !self.is_gone(*operator));
        there
            .flat_map(|operator| self.workers.iter().map(move |worker| (operator, worker)))
            .filter(|(operator, worker)| !linked(*operator, worker))
            .map(|(operator, worker)| (operator, Arc::clone(worker.place())))
            .collect()
    }

    fn unsettled(&self, options: &Options) {
        self.chain.with(|engine| self.laws.check(engine));
        for (number, it) in self.renter.placed().iter().enumerate() {
            if !self.is_over(it) {
                self.laws.break_(format!("job {number} has not come to its end: {:?}", it.known));
            }
        }
        for (operator, worker) in self.unlinked() {
            self.laws.break_(format!("{worker} has no link to operator {operator}"));
        }
        if self.renter.placed().len() < options.jobs {
            self.laws.break_("a job was never submitted".to_owned());
        }
    }

    fn verdict(&self, options: &Options) -> Verdict {
        let jobs = self.renter.placed().iter().map(|it| format!("{:?}", it.known)).collect();
        Verdict {
            seed: options.seed,
            hash: self.trace.hash(),
            events: self.trace.events(),
            transactions: self.chain.transactions(),
            votes: self.votes.count(),
            paid: self.chain.with(|engine| self.laws.paid(engine)),
            broken: self.laws.broken(),
            jobs,
            timeline: self.trace.timeline(),
            lasted: self.time.elapsed(),
        }
    }
}
