//! Three nodes over one PostgreSQL, two of which die while PostgreSQL restarts, under a job whose pod notices nothing. A
//! newer node has been there meanwhile and has left its steps in the schema, and its words in the job.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use atoll_cli::profile::Home;
use atoll_worker::supervisor::client::keeper_of;

use crate::job::{Job, running};
use crate::network::{Network, text, tied, until};
use crate::postgres::Postgres;
use crate::processes::{self, Process};

/// How soon the client has an answer after a node died, by its list of servers.
const ANSWERED_WITHIN: Duration = Duration::from_secs(2);

/// What a newer node leaves in the store, as docs/operators/upgrade.md allows it: a step that only adds, and a field of each
/// job.
const NEWER: &str = "begin; \
     create table newer_things (id text primary key); \
     alter table jobs add column newer text; \
     insert into atoll_schema select max(number) + 1, 'newer', sha256('newer') from atoll_schema; \
     update jobs set generation = generation + 1, \
         changing = jsonb_set(changing::jsonb, '{newer}', '\"kept\"')::text; \
     commit";

/// Names an `atoll` of an earlier commit, which is one of the nodes then: `cargo xtask test --long --part older` builds one.
const OLDER: &str = "ATOLL_OLDER";

/// A node beside the one that `atoll dev` started. It dies with this process.
struct Node {
    process: Process,
    port: u16,
    /// None for `atoll dev`'s own.
    child: Option<Child>,
}

impl Node {
    fn kill(mut self) {
        self.process.signal(libc::SIGKILL);
        until("the node is dead", || (!self.process.runs()).then_some(()));
        if let Some(child) = &mut self.child {
            child.wait().unwrap();
        }
    }
}

/// Starts a node of this build with the operator's keys and certificate on its store, in a folder of its own.
fn beside(network: &Network, store: &str, name: &str) -> Node {
    beside_with(Path::new(env!("CARGO_BIN_EXE_atoll")), network, store, name)
}

/// The same, of the build in [`OLDER`] if there is one.
fn older_beside(network: &Network, store: &str, name: &str) -> Node {
    let older = std::env::var_os(OLDER);
    let older = older.as_ref().map_or(Path::new(env!("CARGO_BIN_EXE_atoll")), Path::new);
    eprintln!("    {name} is {}", older.display());
    beside_with(older, network, store, name)
}

fn beside_with(binary: &Path, network: &Network, store: &str, name: &str) -> Node {
    let state = network.folder.join(name);
    for part in ["keys", "tls"] {
        copy_folder(&network.folder.join("server").join(part), &state.join(part));
    }
    let (log, port_file) = (state.join("node.log"), state.join("port"));
    let log = fs::File::create(log).unwrap();
    let mut command = tied(binary);
    command.args(["server", "--listen", "127.0.0.1:0", "--strangers", "no", "--store", store]);
    command.args(["--rpc", &format!("http://127.0.0.1:{}", network.told.ports.chain)]);
    command.arg("--state").arg(&state).arg("--port-file").arg(&port_file);
    command.arg("--objects").arg(network.folder.join("server/objects"));
    let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
    let port = until("the node listens", || fs::read_to_string(&port_file).ok()?.trim().parse().ok());
    Node { process: Process::of(child.id()).unwrap(), port, child: Some(child) }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// The node to which an agent has connections.
fn holder(nodes: &[Node], agent: Process) -> Option<usize> {
    let sockets: Vec<String> = fs::read_dir(format!("/proc/{}/fd", agent.pid))
        .ok()?
        .filter_map(|entry| Some(fs::read_link(entry.ok()?.path()).ok()?.to_str()?.to_owned()))
        .filter_map(|link| Some(link.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let table = fs::read_to_string(format!("/proc/{}/net/tcp", agent.pid)).ok()?;
    let of = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let port = u16::from_str_radix(fields.get(2)?.split_once(':')?.1, 16).ok()?;
        let stands = *fields.get(3)? == "01" && sockets.iter().any(|inode| inode == fields[9]);
        nodes.iter().position(|node| stands && node.port == port)
    };
    table.lines().skip(1).find_map(of)
}

pub(crate) fn two_of_three_nodes_die_and_nothing_is_lost(network: &mut Network, postgres: &Postgres) {
    let store = postgres.url("postgres");
    let before = network.balances();
    // `atoll dev` would start its server again.
    network.pause_dev();
    let own = Node { process: network.server(), port: network.told.ports.server, child: None };
    let mut nodes = vec![own, older_beside(network, &store, "node-2"), beside(network, &store, "node-3")];
    let servers: Vec<String> = nodes.iter().map(|node| format!("https://127.0.0.1:{}", node.port)).collect();
    tell_servers(network, &servers);

    let job = Job::submit(network, &["--entry", "python ticks.py", "--devices", "1"]);
    let shown = job.until(network, "a checkpoint", |now| {
        (!job.events("checkpoint").is_empty() && running(now, "head").is_some()).then(|| now.clone())
    });
    let pod = running(&shown, "head").unwrap();
    let folder = network.folder.join("worker-1/pods").join(pod["pod"].as_str().unwrap());
    let supervisor = Process::of(u32::try_from(keeper_of(&folder).unwrap().pid).unwrap()).unwrap();
    let in_pod = supervisor.children();
    assert!(!in_pod.is_empty());
    postgres.run("postgres", NEWER).unwrap();
    // Started again, the older one finds its way about, too.
    older_beside(network, &store, "node-4").kill();

    // Each of the three holds the link once, an older one too.
    for last in [false, true] {
        let at = until("the link stands", || holder(&nodes, network.agent("worker-1")));
        nodes.remove(at).kill();
        let died = Instant::now();
        assert_eq!(job.show(network)["job"], job.id.as_str());
        assert!(died.elapsed() < ANSWERED_WITHIN, "the API answered after {:?}", died.elapsed());
        until("the link stands at another node", || holder(&nodes, network.agent("worker-1")));
        if !last {
            postgres.restart().unwrap();
        }
        let seq = job.seen();
        let checkpoint = job.until_event(network, "checkpoint", seq);
        assert_eq!(checkpoint["fields"]["attempt"], "1", "the command was started again");
    }
    // Longer than a worker is waited for: nobody gives the pod up.
    let checkpoints = job.events("checkpoint").len() + 5;
    job.until(network, "more checkpoints", |_| (job.events("checkpoint").len() >= checkpoints).then_some(()));
    assert!(job.events("lost").is_empty(), "the lease was given up: {:?}", job.events("lost"));
    assert!(supervisor.runs(), "the supervisor is another one");
    assert_eq!(supervisor.children(), in_pod, "the pod's processes are others");

    finish(network);
    let ended = job.until(network, "its success", |now| (now["state"] == "succeeded").then(|| now.clone()));
    assert_eq!(ended["attempt"], 1, "{ended}");
    let kept = format!("select changing::jsonb ->> 'newer' from jobs where id = '{}'", job.id);
    assert_eq!(postgres.run("postgres", &kept).unwrap().trim(), "kept", "a newer node's field of the job is gone");
    let output = text(&job.output(network));
    let ticks: Vec<&str> = output.lines().filter(|line| line.starts_with("tick ")).collect();
    assert!(ticks.iter().enumerate().all(|(n, line)| *line == format!("tick {}", n + 1)), "{output}");
    assert!(network.balances().conserved_since(&before) > 0);
    let receipt = network.folder.join("receipt.json");
    let receipt = receipt.to_str().unwrap();
    network.json(&["receipt", "show", &job.id, "--output", receipt]);
    network.json(&["receipt", "verify", receipt, "--network-root", &network.told.network_root]);
}

/// Has the worker and the client know all servers.
fn tell_servers(network: &mut Network, servers: &[String]) {
    let agent = network.agent("worker-1");
    agent.signal(libc::SIGKILL);
    until("the agent is dead", || (!agent.runs()).then_some(()));
    let file = network.folder.join("worker-1/worker.toml");
    let written = fs::read_to_string(&file).unwrap();
    let list = servers.iter().map(|server| format!("\"{server}\"")).collect::<Vec<_>>().join(", ");
    let told = written.replace(&format!("\"{}\"", servers[0]), &list);
    assert_ne!(told, written);
    fs::write(&file, told).unwrap();
    network.start_agent("worker-1");
    until("it is linked", || network.is_linked("worker-1").then_some(()));
    let mut profile = network.profile();
    profile.server = servers.join(",");
    Home::at(network.home()).save(&profile).unwrap();
}

/// Lets the command in the pod end by itself.
fn finish(network: &Network) {
    let line = |one: &Process| text(&fs::read(format!("/proc/{}/cmdline", one.pid)).unwrap_or_default());
    let all = processes::of_folder(&network.folder);
    let command = all.iter().find(|one| line(one).starts_with("python\0ticks.py")).expect("the command runs");
    fs::write(format!("/proc/{}/cwd/finish", command.pid), "").unwrap();
}
