//! A job of one pod whose agent is killed while it checkpoints and while it settles, and whose operator's store is put
//! back to before the job, and then deleted: pod, attempt and books go on.

use std::fs;
use std::path::PathBuf;

use atoll_worker::supervisor::client::keeper_of;

use crate::job::{Job, running};
use crate::network::{Network, until};
use crate::processes::{self, Process};

/// What a pod's disk and processes show of the command.
struct Pod {
    folder: PathBuf,
    supervisor: Process,
    below: Vec<Process>,
}

impl Pod {
    fn of(network: &Network, job: &Job) -> (String, Self) {
        let now = job.show(network);
        let pod = running(&now, "head").expect("its pod runs");
        let role = network.role_of(pod["worker"].as_str().unwrap());
        let folder = network.folder.join(&role).join("pods").join(pod["pod"].as_str().unwrap());
        let supervisor = Process::of(u32::try_from(keeper_of(&folder).unwrap().pid).unwrap()).unwrap();
        (role, Self { below: supervisor.children(), folder, supervisor })
    }

    fn is_the_same(&self) {
        assert!(self.supervisor.runs(), "the supervisor is another one");
        assert_eq!(self.supervisor.children(), self.below, "the pod's processes are others");
    }

    /// Tells the command to end, inside of the pod.
    fn end(&self) {
        let root = |process: Process| PathBuf::from(format!("/proc/{}/root", process.pid));
        let mut inside =
            processes::below(&self.supervisor).into_iter().map(root).filter(|root| root.join("job/src").exists());
        fs::write(inside.next().expect("a process of the pod").join("job/end"), "").unwrap();
        assert!(self.folder.exists());
    }
}

/// The store's files.
fn store(network: &Network) -> Vec<PathBuf> {
    let files = fs::read_dir(network.folder.join("server")).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("control.db")).collect()
}

/// Copies the store as it stands at one moment.
pub(crate) fn copy_of_the_store(network: &Network) -> PathBuf {
    let copy = network.folder.join("copy");
    fs::create_dir_all(&copy).unwrap();
    let server = network.server();
    server.signal(libc::SIGSTOP);
    for file in store(network) {
        fs::copy(&file, copy.join(file.file_name().unwrap())).unwrap();
    }
    server.signal(libc::SIGCONT);
    copy
}

/// Kills the server and leaves in its store's place what is in a folder, or nothing. `atoll dev` starts it again.
fn lose_the_store(network: &mut Network, instead: Option<&PathBuf>) {
    let server = network.server();
    server.signal(libc::SIGSTOP);
    for file in store(network) {
        fs::remove_file(file).unwrap();
    }
    for file in instead.into_iter().flat_map(|copy| fs::read_dir(copy).unwrap()) {
        let file = file.unwrap().path();
        fs::copy(&file, network.folder.join("server").join(file.file_name().unwrap())).unwrap();
    }
    server.signal(libc::SIGKILL);
    until("the server is dead", || (!server.runs()).then_some(()));
    network.server_is_back();
    if instead.is_none() {
        network.renew_key();
    }
}

fn kill_the_agent(network: &mut Network, role: &str) {
    let agent = network.agent(role);
    agent.signal(libc::SIGKILL);
    until("the agent is dead", || (!agent.runs()).then_some(()));
    network.start_agent(role);
}

/// The newest whole checkpoint in the object store.
fn newest(network: &Network, job: &Job) -> u64 {
    let folder = network.folder.join("server/objects/jobs").join(&job.id).join("checkpoints");
    let steps = fs::read_dir(folder).into_iter().flatten().filter_map(|entry| {
        let name = entry.unwrap().path().file_stem()?.to_str()?.to_owned();
        name.rsplit('-').next()?.parse().ok()
    });
    steps.max().unwrap_or_default()
}

pub(crate) fn a_job_goes_on(network: &mut Network) {
    let before = network.balances();
    let copy = copy_of_the_store(network);
    let job = Job::submit(network, &["--entry", "python steady.py", "--devices", "1"]);
    job.until(network, "its first checkpoints", |now| {
        (running(now, "head").is_some() && newest(network, &job) >= 3).then_some(())
    });
    let (role, pod) = Pod::of(network, &job);
    let more = |network: &Network, what: &str| {
        let step = newest(network, &job);
        until(what, || (newest(network, &job) >= step + 3).then_some(()));
        pod.is_the_same();
    };

    for _ in 0..3 {
        kill_the_agent(network, &role);
        more(network, "checkpoints after the agent's death");
    }
    // The store of before the job.
    lose_the_store(network, Some(&copy));
    goes_on(network, &job);
    more(network, "checkpoints after the store was put back");
    // No store at all.
    lose_the_store(network, None);
    goes_on(network, &job);
    more(network, "checkpoints after the store was deleted");

    pod.end();
    job.until(network, "its settling", |now| (now["state"] == "settling").then_some(()));
    kill_the_agent(network, &role);
    let ended = job.until(network, "its success", |now| (now["state"] == "succeeded").then(|| now.clone()));
    assert_eq!(ended["attempt"], 1, "{ended}");
    until("its pod has ended", || (network.supervisors() == 0).then_some(()));
    let after = network.balances();
    assert!(after.conserved_since(&before) > 0);
    assert!(after.suppliers[&role] > before.suppliers[&role], "its supplier was not paid");
    assert_eq!(network.orders_of(&network.told.renter_wallet), 0, "the order is still open");
    let receipt = network.folder.join("receipt.json");
    let receipt = receipt.to_str().unwrap();
    network.json(&["receipt", "show", &job.id, "--output", receipt]);
    network.json(&["receipt", "verify", receipt, "--network-root", &network.told.network_root]);
}

/// The job is taken up again under its own id, with the attempt that runs.
fn goes_on(network: &Network, job: &Job) {
    until("the job is known and runs again", || {
        let shown = network.atoll(&network.home(), &["job", "show", &job.id, "--json"]);
        let now: serde_json::Value = serde_json::from_slice(&shown.stdout).ok()?;
        (now["state"] == "running" && now["attempt"] == 1).then_some(())
    });
}

/// A lease that ends while its command runs: what was served is paid, the rest refunded, and it says why.
pub(crate) fn a_budget_ends_and_says_so(network: &Network) {
    let before = network.balances();
    let job = Job::submit(network, &["--entry", "python idle.py", "--devices", "1", "--max-hours", "0.008"]);
    let ended = until("its end", || {
        let now = job.show(network);
        (now["state"] == "failed").then_some(now)
    });
    assert_eq!(ended["reason"], "its lease ended before its command did");
    until("its pod has ended", || (network.supervisors() == 0).then_some(()));
    let spent = network.balances().conserved_since(&before);
    assert!(spent > 0 && spent <= ended["escrow"].as_u64().unwrap(), "{spent} was spent");
    assert_eq!(network.orders_of(&network.told.renter_wallet), 0, "the order is still open");
    let receipt = network.folder.join("short.json");
    let receipt = receipt.to_str().unwrap();
    network.json(&["receipt", "show", &job.id, "--output", receipt]);
    network.json(&["receipt", "verify", receipt, "--network-root", &network.told.network_root]);
}
