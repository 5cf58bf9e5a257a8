//! A worker that is killed, a program that will not end, a disk that is full: through the machine as a worker has it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use atoll_worker::host::machine::Machine;
use atoll_worker::host::{Found, FoundState, Host as _};
use atoll_worker::meter::Meter;
use atoll_worker::runtime::procs;
use atoll_worker::supervisor::client::{self, Pod};
use atoll_worker::supervisor::spec::Start;
use atoll_worker::supervisor::usage::{self, Reading, Record, Spool};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::support::{Host, ROLES, gone, nobody_left, spec, unix_ms, until};

fn machine(host: &Host) -> Machine {
    Machine::open(host.dir.path().to_owned(), ROLES.into()).unwrap()
}

/// The supervisor of a folder, by what it was started with.
fn supervisor(dir: &Path) -> Option<i32> {
    let wanted = format!(" pod-supervisor --dir {}", dir.display());
    procs::all().find(|pid| procs::command_line(*pid).ends_with(&wanted))
}

#[tokio::test]
async fn a_worker_killed_while_it_starts_a_pod_finds_it_when_it_comes_back() {
    let host = Host::new();
    let mut wanted = spec(1, 1);
    wanted.start = Start::OnRun;
    let dir = host.prepare(&wanted);
    // As a worker leaves it that is killed right after it started the supervisor, which has not come far yet.
    let mut left = std::process::Command::new(ROLES)
        .arg("pod-supervisor")
        .arg("--dir")
        .arg(&dir)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let known = BTreeSet::from([wanted.pod]);
    let machine = machine(&host);
    assert_eq!(machine.take_up(&known).await.unwrap(), [Found { pod: wanted.pod, now: FoundState::Ready }]);
    assert_eq!(supervisor(&dir), i32::try_from(left.id()).ok(), "the very same");
    machine.stop(wanted.pod, Duration::ZERO).await.unwrap();
    left.wait().unwrap();
    nobody_left(wanted.uid.unwrap()).await;
}

#[tokio::test]
async fn a_supervisor_that_hangs_is_killed_and_its_pod_with_it() {
    let host = Host::new();
    let pod = host.start(spec(1, 1)).await;
    kill(Pid::from_raw(pod.status.supervisor_pid), Signal::SIGSTOP).unwrap();
    // What its worker does when no answer comes in time.
    client::kill_supervisors(pod.pod.dir()).await.unwrap();
    gone("the supervisor", pod.status.supervisor_pid).await;
    nobody_left(pod.spec.uid.unwrap()).await;
    let found = machine(&host).take_up(&BTreeSet::from([pod.spec.pod])).await.unwrap();
    assert!(matches!(found[0].now, FoundState::Ended { code: None, .. }), "{found:?}");
}

#[tokio::test]
async fn a_program_that_ignores_sigterm_is_killed_and_its_end_is_known() {
    let host = Host::new();
    let mut wanted = spec(1, 1);
    wanted.start = Start::OnRun;
    let code = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('up')\ntime.sleep(1000)";
    wanted.argv = ["/usr/bin/python3", "-u", "-c", code].map(str::to_owned).to_vec();
    let machine = machine(&host);
    machine.prepare(&wanted).await.unwrap();
    machine.run(wanted.pod, BTreeMap::new()).await.unwrap();
    let pod = Pod::at(&host.pods().join(wanted.pod.to_string()));
    until("it is up", async || (pod.status().await.unwrap().output_bytes > 0).then_some(())).await;
    let over = machine.stop(wanted.pod, Duration::from_millis(300)).await.unwrap();
    assert!(over.code.is_none() && over.reason.contains("did not end by itself"), "{over:?}");
    assert_eq!(machine.wait(wanted.pod, Duration::ZERO).await.unwrap(), Some(over), "whoever asks hears the same");
    nobody_left(wanted.uid.unwrap()).await;
    machine.discard(wanted.pod).await.unwrap();
}

/// A disk with room for little, gone with the test.
struct SmallDisk<'a>(&'a Path);

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = umount2(self.0, MntFlags::MNT_DETACH);
    }
}

#[tokio::test]
async fn what_a_full_disk_does_not_take_is_not_claimed_and_when_there_is_room_it_goes_on() {
    let host = Host::new();
    let wanted = spec(1, 1);
    let dir = host.pods().join(wanted.pod.to_string());
    std::fs::create_dir_all(&dir).unwrap();
    mount(Some("tmpfs"), &dir, Some("tmpfs"), MsFlags::empty(), Some("size=64k")).unwrap();
    let _disk = SmallDisk(&dir);
    let genesis = Record::genesis_of(&wanted);
    let mut spool = Spool::create(&dir, genesis).unwrap();
    let reading = |n: u64| Reading { at: unix_ms(), served_ms: n * 1000, cpu_ms: n, memory_bytes: 1 };
    // All of it but some bytes, so that a record fits in part only.
    std::fs::write(dir.join("filler"), vec![0; 56 << 10]).unwrap();
    let mut n = 0;
    while spool.append(reading(n)).is_ok() {
        n += 1;
        assert!(n < 1000, "the disk is never full");
    }
    let whole = spool.head();
    assert!(spool.append(reading(n)).is_err(), "it stays full");
    let machine = machine(&host);
    let mut meter = Meter::new(wanted.pod, &wanted.order, wanted.lease, wanted.fence);
    assert_eq!(meter.read(&machine).await.unwrap().unwrap().head, whole.hash);
    std::fs::remove_file(dir.join("filler")).unwrap();
    let next = spool.append(reading(n + 100)).unwrap();
    assert!(whole.is_followed_by(&next));
    assert_eq!(meter.read(&machine).await.unwrap().unwrap().head, next.hash, "it is believed still");
    let records = usage::read(&dir, 0, 2000).unwrap();
    assert_eq!(usage::verify(&genesis, &records), (usize::try_from(next.seq).unwrap(), true));
}
