//! Beginning, end, and what stays: supervisors, spools, streams.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use atoll_worker::runtime::procs;
use atoll_worker::supervisor::client::{self, Pod};
use atoll_worker::supervisor::output;
use atoll_worker::supervisor::protocol::{Reason, State};
use atoll_worker::supervisor::spec::Start;
use atoll_worker::supervisor::usage::{self, Record};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use super::support::{Host, gone, nobody_left, spec, unix_ms, until};

fn printing(code: &str) -> Vec<String> {
    ["/usr/bin/python3", "-u", "-c", code].map(str::to_owned).to_vec()
}

#[tokio::test]
async fn a_pod_dies_with_its_supervisor() {
    let host = Host::new();
    let pod = host.start(spec(1, 1)).await;
    let uid = pod.spec.uid.unwrap();
    assert_eq!(pod.sh("cat /proc/net/dev | grep -c tun0").await.1, "1\n");
    let netns = std::fs::read_link(format!("/proc/{}/ns/net", pod.status.pod_pid)).unwrap();
    assert!(namespaces().contains(&netns));
    kill(Pid::from_raw(pod.status.supervisor_pid), Signal::SIGKILL).unwrap();
    nobody_left(uid).await;
    until("its network namespace is gone", async || (!namespaces().contains(&netns)).then_some(())).await;
    assert!(Pod::attach(pod.pod.dir()).await.is_err());
    assert!(pod.pod.exit().is_none(), "nobody wrote how it ended");
}

/// The network namespaces that some process is in.
fn namespaces() -> BTreeSet<std::path::PathBuf> {
    procs::all().filter_map(|pid| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok()).collect()
}

#[tokio::test]
async fn a_worker_that_comes_back_finds_the_same_pod_and_nothing_lost() {
    let host = Host::new();
    let mut wanted = spec(1, 1);
    wanted.argv = printing("import time\nfor n in range(10**6): print(n); time.sleep(0.05)");
    let dir = host.prepare(&wanted);
    // A worker of its own process group that starts the pod and dies at once.
    let starter = std::process::Command::new("/bin/sh")
        .args(["-c", "\"$0\" pod-supervisor --dir \"$1\" > \"$1/first\" & while ! grep -qs answer \"$1/first\"; do :; done; kill -9 $$"])
        .arg(super::support::ROLES)
        .arg(&dir)
        .status()
        .unwrap();
    assert!(!starter.success());
    let (pod, before) = Pod::attach(&dir).await.unwrap();
    let later = until("it goes on", async || {
        let status = pod.status().await.unwrap();
        (status.output_bytes > before.output_bytes + 20 && status.usage.seq > before.usage.seq + 2).then_some(status)
    })
    .await;
    assert_eq!((later.pod_pid, later.supervisor_pid), (before.pod_pid, before.supervisor_pid));
    assert_eq!(later.state, State::Running);

    // A lease that ended while the worker was away: its pod is not among the allowed.
    let uid = wanted.uid.unwrap();
    let allowed = BTreeSet::from([wanted.pod]);
    assert!(client::kill_orphans(&host.pods(), &allowed).await.unwrap().is_empty());
    assert_eq!(pod.status().await.unwrap().pod_pid, before.pod_pid);
    assert_eq!(client::kill_orphans(&host.pods(), &BTreeSet::new()).await.unwrap(), [wanted.pod]);
    nobody_left(uid).await;
    let exit = pod.exit().unwrap();
    assert_eq!(exit.reason, Reason::Stopped);

    // The spools say everything after the supervisor has gone.
    let records = pod.usage(0).await.unwrap();
    assert_eq!(usage::verify(&Record::genesis_of(&wanted), &records), (records.len(), true));
    assert_eq!(records.last(), Some(&exit.usage));
    assert!(exit.usage.served_ms >= later.usage.served_ms);
    let mut output = vec![0; 100_000];
    let (at, count) = output::read(&dir, 0, &mut output).unwrap();
    let lines: Vec<String> = String::from_utf8_lossy(&output[..count]).lines().map(str::to_owned).collect();
    assert!(
        at == 0 && lines.len() > 3 && lines.iter().enumerate().all(|(n, line)| *line == n.to_string()),
        "{lines:?}"
    );
}

#[tokio::test]
async fn at_the_end_of_the_lease_and_grace_the_pod_ends_with_nobody_there() {
    let host = Host::new();
    let mut wanted = spec(1, 1);
    (wanted.ends_at, wanted.grace_ms) = (unix_ms().after(Duration::from_millis(700)), 600);
    let killed_at = wanted.ends_at.after(Duration::from_millis(600));
    let pod = host.start(wanted).await;
    gone("the supervisor ends", pod.status.supervisor_pid).await;
    let exit = pod.pod.exit().unwrap();
    assert_eq!((exit.reason, exit.code), (Reason::LeaseEnded, None));
    assert!(exit.exited_at >= killed_at && exit.exited_at.since(killed_at) < Duration::from_secs(3), "{exit:?}");
    nobody_left(pod.spec.uid.unwrap()).await;
}

#[tokio::test]
async fn a_lease_that_was_extended_ends_later() {
    let host = Host::new();
    let mut wanted = spec(1, 1);
    (wanted.ends_at, wanted.grace_ms) = (unix_ms().after(Duration::from_millis(1500)), 0);
    let first_end = wanted.ends_at;
    let pod = host.start(wanted).await;
    pod.pod.extend(first_end.after(Duration::from_millis(1500))).await.unwrap();
    let exit = pod.pod.wait(Duration::from_secs(20)).await.unwrap().expect("it ends");
    assert_eq!(exit.reason, Reason::LeaseEnded);
    assert!(exit.exited_at >= first_end.after(Duration::from_millis(1500)));
}

#[tokio::test]
async fn a_prepared_pod_starts_when_told_with_what_it_was_told() {
    let host = Host::new();
    let mut wanted = spec(1, 1);
    wanted.start = Start::OnRun;
    wanted.env = BTreeMap::from([("ATOLL_ROLE".to_owned(), "node".to_owned())]);
    let pod = host.start(wanted).await;
    assert_eq!(pod.status.state, State::Ready);
    let env = BTreeMap::from([("ATOLL_HEAD_IP".to_owned(), "10.77.0.9".to_owned())]);
    let bad = BTreeMap::from([("LD_PRELOAD".to_owned(), "/job/x.so".to_owned())]);
    assert!(pod.pod.run(None, bad).await.unwrap_err().to_string().contains("loader"));
    let argv = printing("import os, sys; print(os.environ['ATOLL_ROLE'], os.environ['ATOLL_HEAD_IP']); sys.exit(7)");
    pod.pod.run(Some(argv.clone()), env).await.unwrap();
    let exit = pod.pod.wait(Duration::from_secs(20)).await.unwrap().expect("it ends");
    assert_eq!((exit.reason, exit.code), (Reason::Exited, Some(7)));
    assert_eq!(exit.message, "the program ended with status 7, saying: node 10.77.0.9");
    assert!(exit.usage.seq >= 1, "even a short pod has a record");
    assert!(pod.pod.run(Some(argv), BTreeMap::new()).await.is_err(), "once");
    let mut printed = [0; 100];
    let (_, count) = output::read(pod.pod.dir(), 0, &mut printed).unwrap();
    assert_eq!(&printed[..count], b"node 10.77.0.9\n");
}

#[tokio::test]
async fn a_program_that_ends_in_time_when_asked_keeps_its_status() {
    let host = Host::new();
    let mut wanted = spec(1, 1);
    wanted.argv = printing(
        "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(3))\nprint('up')\ntime.sleep(100)",
    );
    let pod = host.start(wanted).await;
    until("it is up", async || (pod.pod.status().await.unwrap().output_bytes > 0).then_some(())).await;
    let exit = pod.pod.stop(Duration::from_secs(20)).await.unwrap();
    assert_eq!((exit.reason, exit.code), (Reason::Stopped, Some(3)), "{exit:?}");
}

#[tokio::test]
async fn output_is_followed_to_the_end_and_bounded() {
    let host = Host::new();
    let mut wanted = spec(1, 1);
    wanted.limits.output_bytes = 100_000;
    wanted.argv = printing(
        "import sys\nprint('begin')\nsys.stdin.read()\nfor n in range(50000): print('%09d' % n)\nprint('end', file=sys.stderr)",
    );
    wanted.start = Start::OnRun;
    let pod = host.start(wanted).await;
    let (offset, mut follower) = pod.pod.output(0, true).await.unwrap();
    assert_eq!(offset, 0);
    pod.pod.run(None, BTreeMap::new()).await.unwrap();
    let mut first = String::new();
    follower.read_line(&mut first).await.unwrap();
    assert_eq!(first, "begin\n");
    // The follower either got everything, or was cut off where it fell behind and asks again.
    let mut rest = Vec::new();
    follower.read_to_end(&mut rest).await.unwrap();
    let exit = pod.pod.wait(Duration::from_secs(30)).await.unwrap().expect("it ends");
    assert_eq!(exit.code, Some(0), "{exit:?}");
    let (mut kept, mut buffer) = (Vec::new(), vec![0; 200_000]);
    let (first, mut count) = output::read(pod.pod.dir(), 0, &mut buffer).unwrap();
    while count > 0 {
        kept.extend_from_slice(&buffer[..count]);
        count = output::read(pod.pod.dir(), first + kept.len() as u64, &mut buffer).unwrap().1;
    }
    assert!(first > 300_000, "old output was dropped, and the offset says so: {first}");
    assert!((50_000..=100_000).contains(&kept.len()), "{}", kept.len());
    assert_eq!(first + kept.len() as u64, 6 + 50_000 * 10 + 4);
    assert!(kept.ends_with(b"000049999\nend\n"));
    let files = std::fs::read_dir(pod.pod.dir()).unwrap().flatten();
    let files = files.filter(|entry| entry.file_name().to_string_lossy().starts_with("output-"));
    assert_eq!(files.map(|file| file.metadata().unwrap().len()).sum::<u64>(), kept.len() as u64);
}

#[tokio::test]
async fn the_store_is_reached_through_the_worker_and_only_while_it_is_there() {
    let host = Host::new();
    let mut wanted = spec(1, 1);
    let socket = host.dir.path().join("w".repeat(100)).join("worker.sock");
    std::fs::create_dir(socket.parent().unwrap()).unwrap();
    wanted.worker_socket = Some(socket.clone());
    let pod = host.start(wanted).await;
    let fetch = "import socket; s = socket.create_connection((\"127.0.0.1\", 7070)); s.sendall(b\"hello\\n\"); \
                 print(s.makefile().read())";
    let (status, output) = pod.python(fetch).await;
    assert!(status == 1 || output.trim().is_empty(), "no worker, no answer: {output}");

    let folder = std::fs::File::open(socket.parent().unwrap()).unwrap();
    let short = format!("/proc/self/fd/{}/worker.sock", std::os::fd::AsRawFd::as_raw_fd(&folder));
    let worker = tokio::net::UnixListener::bind(short).unwrap();
    let served = tokio::spawn(async move {
        let (stream, _) = worker.accept().await.unwrap();
        let mut stream = BufReader::new(stream);
        let (mut header, mut request) = (String::new(), String::new());
        stream.read_line(&mut header).await.unwrap();
        stream.read_line(&mut request).await.unwrap();
        stream.write_all(b"a manifest").await.unwrap();
        (header, request)
    });
    assert_eq!(pod.python(fetch).await, (0, "a manifest\n".to_owned()));
    let (header, request) = served.await.unwrap();
    assert_eq!(header, format!("{{\"pod\":\"{}\"}}\n", pod.spec.pod));
    assert_eq!(request, "hello\n");
}

#[tokio::test]
async fn the_door_opens_ports_of_the_pod_and_leaks_nothing() {
    let host = Host::new();
    let pod = host.start(spec(1, 1)).await;
    assert_eq!(pod.sh("echo through the door").await, (0, "through the door\n".to_owned()));
    let error = pod.pod.dial(9999).await.unwrap_err().to_string();
    assert!(error.contains("port 9999 of the pod: Connection refused"), "{error}");
    let open = |pid: i32| std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let supervisor = pod.status.supervisor_pid;
    let before = open(supervisor);
    for _ in 0..50 {
        assert_eq!(pod.sh("true").await.0, 0);
        assert!(pod.pod.dial(9999).await.is_err());
    }
    until("every descriptor is closed again", async || (open(supervisor) <= before).then_some(())).await;
    let threads = || std::fs::read_dir(format!("/proc/{supervisor}/task")).unwrap().count();
    until("every thread has ended", async || (threads() <= 6).then_some(())).await;
    let resident = procs::resident_bytes(supervisor).unwrap();
    assert!(resident <= 12_000_000, "the supervisor takes {resident} bytes");
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_the_next_step_and_leaves_nothing() {
    let host = Host::new();
    let mut no_tun = spec(1, 1);
    no_tun.tun_device = host.dir.path().join("tun");
    let refusal = host.refusal(&no_tun).await;
    assert!(refusal.contains("mknod -m 666") && refusal.contains("c 10 200"), "{refusal}");
    nobody_left(no_tun.uid.unwrap()).await;

    let mut no_pack = spec(1, 1);
    no_pack.binds.push(atoll_worker::supervisor::spec::Bind { host: "/nonexistent".into(), pod: "/opt/x".into() });
    assert!(host.refusal(&no_pack).await.contains("open /nonexistent"));

    let mut as_root = spec(1, 1);
    as_root.uid = None;
    assert!(host.refusal(&as_root).await.contains("names a uid exactly when"));

    let mut no_bwrap = spec(1, 1);
    no_bwrap.bwrap = "/nonexistent/bwrap".into();
    let pod = host.start(no_bwrap).await;
    let exit = pod.pod.wait(Duration::from_secs(20)).await.unwrap().expect("it ends");
    assert_eq!(exit.reason, Reason::NotStarted);
    assert!(exit.message.contains("apt install bubblewrap"), "{}", exit.message);
    assert_eq!(exit.usage.served_ms, 0, "nothing was served");

    // A directory serves one pod once.
    let again = Pod::spawn(Path::new(super::support::ROLES), pod.pod.dir()).await.unwrap_err();
    assert!(format!("{again:#}").contains("begin the usage spool"), "{again:#}");
    let groups = std::fs::read_dir("/sys/fs/cgroup/pids").into_iter().flatten().flatten();
    let left: Vec<_> =
        groups.filter(|group| group.file_name().to_string_lossy().contains(&no_tun.pod.to_string())).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn garbage_on_the_socket_is_refused_and_the_pod_goes_on() {
    let host = Host::new();
    let pod = host.start(spec(1, 1)).await;
    let path = pod.pod.dir().join("supervisor.sock");
    let lines = [
        &b"\n"[..],
        b"{}\n",
        b"{\"op\":\"status\",\"x\":1}\n",
        b"\xff\xfe\n",
        b"{\"op\":\"roster\",\"members\":[\"zz\"]}\n",
    ];
    for line in lines {
        let stream = atoll_worker::supervisor::streams::connect_unix(&path).unwrap();
        stream.set_nonblocking(true).unwrap();
        let mut stream = tokio::net::UnixStream::from_std(stream).unwrap();
        stream.write_all(line).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("refused"), "{answer}");
    }
    let endless = atoll_worker::supervisor::streams::connect_unix(&path).unwrap();
    let flood =
        tokio::task::spawn_blocking(move || std::io::Write::write_all(&mut &endless, &vec![b'['; 3 << 20]).is_err());
    assert!(flood.await.unwrap(), "a line without an end is not read to its end");
    assert_eq!(pod.sh("true").await.0, 0);
}
