//! Limits, by what happens and not by what a file says.

use std::time::Duration;

use atoll_worker::runtime::cgroup::Limits;
use atoll_worker::supervisor::protocol::Reason;

use super::support::{Host, gone, nobody_left, spec, until};

fn require_strong(limits: &Limits) {
    assert!(matches!(limits, Limits::Strong { .. }), "these tests need cgroups that root may write: {limits:?}");
}

/// The number among the lines of output (a shell may add that something was killed).
fn number(output: &str) -> u32 {
    output.lines().find_map(|line| line.trim().parse().ok()).expect("a number was printed")
}

#[tokio::test]
async fn memory_processes_and_cpu_are_limited() {
    let host = Host::new();
    let mut spec = spec(1, 1);
    (spec.limits.memory_bytes, spec.limits.pids, spec.limits.cpu_milli) = (128 << 20, 40, 500);
    let pod = host.start(spec).await;
    require_strong(&pod.status.limits);

    let (status, _) = pod.python("b = b\"x\" * (64 << 20); print(len(b))").await;
    assert_eq!(status, 0, "half of the limit is fine");
    let (status, _) = pod.python("b = b\"x\" * (300 << 20); print(len(b))").await;
    assert_eq!(status, 128 + 9, "more than the limit is killed");

    let forks = "import os, time\nn = 0\ntry:\n  while n < 200:\n    if os.fork() == 0: time.sleep(20); os._exit(0)\n    n += 1\n\
                 except OSError: pass\nprint(n, flush=True)\nos.killpg(0, 9)";
    let (_, output) = pod.sh(&format!("setsid python3 -c '{forks}' | cat")).await;
    let forked = number(&output);
    assert!((20..40).contains(&forked), "forked {output:?} with a limit of 40");

    let burn = "import time; w = time.monotonic(); c = time.process_time()\nwhile time.monotonic() - w < 2: pass\n\
                print(int(1000 * (time.process_time() - c) / (time.monotonic() - w)))";
    let (_, output) = pod.sh(&format!("python3 -c '{burn}'")).await;
    let share_milli: u32 = output.trim().parse().unwrap();
    assert!(share_milli <= 600, "took {share_milli} thousandths of a CPU with a limit of 500");

    let exit = pod.pod.stop(Duration::ZERO).await.unwrap();
    assert!(exit.oom_kills >= 1, "{exit:?}");
    assert!(exit.usage.cpu_ms >= 500, "{exit:?}");
}

#[tokio::test]
async fn the_folders_in_memory_have_their_sizes() {
    let host = Host::new();
    let pod = host.start(spec(1, 1)).await;
    for folder in ["/tmp", "/dev/shm"] {
        assert_eq!(pod.sh(&format!("head -c 8000000 /dev/zero > {folder}/fits")).await.0, 0);
        let (_, output) = pod.sh(&format!("head -c 20000000 /dev/zero > {folder}/full")).await;
        assert!(output.contains("No space left"), "{folder}: {output}");
    }
}

#[tokio::test]
async fn a_pod_that_fills_the_disk_is_ended_with_the_reason() {
    let host = Host::new();
    let mut spec = spec(1, 1);
    spec.limits.disk_bytes = 20 << 20;
    let pod = host.start(spec).await;
    // One file alone cannot get there.
    let (_, output) = pod.sh("head -c 30000000 /dev/zero > /job/one; ls -l /job/one | cut -d' ' -f5").await;
    assert!(output.lines().last().is_some_and(|size| size == "20971520"), "{output}");
    let filling = pod.sh("for n in 1 2 3; do head -c 15000000 /dev/zero > /job/$n; done; sleep 30");
    let (exit, _) = tokio::join!(pod.pod.wait(Duration::from_secs(20)), filling);
    let exit = exit.unwrap().expect("the pod is ended");
    assert_eq!(exit.reason, Reason::DiskLimit);
    assert!(exit.message.contains("the limit is 20971520 bytes"), "{}", exit.message);
    nobody_left(pod.spec.uid.unwrap()).await;
}

#[tokio::test]
async fn what_was_deleted_and_is_still_open_counts_as_well() {
    let host = Host::new();
    let mut spec = spec(1, 1);
    spec.limits.disk_bytes = 20 << 20;
    let pod = host.start(spec).await;
    let hide = "import os, time\nkept = []\nfor n in range(3):\n  f = open(\"/job/f\", \"wb\"); os.remove(\"/job/f\")\n  \
                f.write(bytes(15000000)); f.flush(); kept.append(f)\ntime.sleep(30)";
    let command = format!("python3 -c '{hide}'");
    let (exit, _) = tokio::join!(pod.pod.wait(Duration::from_secs(20)), pod.sh(&command));
    assert_eq!(exit.unwrap().expect("the pod is ended").reason, Reason::DiskLimit);
}

#[tokio::test]
async fn two_pods_never_have_one_user_whatever_they_are_told() {
    let host = Host::new();
    let (one, two) = (spec(1, 1), spec(1, 2));
    let two = atoll_worker::supervisor::spec::PodSpec { uid: one.uid, ..two };
    let (one, two) = (host.start(one).await, host.start(two).await);
    let user = |pod: &super::support::TestPod| {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(format!("/proc/{}", pod.status.pod_pid)).unwrap().uid()
    };
    assert_eq!(user(&one), one.spec.uid.unwrap());
    assert_ne!(user(&one), user(&two));
    assert_eq!(two.sh("touch /job/mine && id -u").await.1, "1000\n");
}

#[tokio::test]
async fn nothing_of_a_pod_is_left_whatever_it_built() {
    let host = Host::new();
    let pod = host.start(spec(1, 1)).await;
    let build = "import os\nfor n in range(3000): os.mkdir(\"d\"); os.chdir(\"d\")";
    pod.sh(&format!("ln -s /usr link; mkdir -p shut/in; chmod 0 shut; python3 -c '{build}'")).await;
    pod.pod.stop(Duration::ZERO).await.unwrap();
    atoll_worker::supervisor::client::discard(pod.pod.dir()).unwrap();
    assert!(!pod.pod.dir().exists());
    assert!(std::path::Path::new("/usr/bin/bwrap").exists());
}

/// A worker that is nobody special: everything but the strength of the limits is the same, and that is said.
#[tokio::test]
async fn without_root_a_pod_works_and_its_limits_are_called_weak() {
    use std::io::BufRead;
    use std::os::unix::fs::{PermissionsExt, chown};
    use std::os::unix::process::CommandExt;
    let host = Host::new();
    let worker = super::support::fresh_uid();
    let (folder, tun) = (host.dir.path(), host.dir.path().join("tun"));
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    let kind = nix::sys::stat::SFlag::S_IFCHR;
    nix::sys::stat::mknod(&tun, kind, nix::sys::stat::Mode::empty(), nix::sys::stat::makedev(10, 200)).unwrap();
    std::fs::set_permissions(&tun, std::fs::Permissions::from_mode(0o666)).unwrap();
    let roles = folder.join("roles");
    std::fs::copy(super::support::ROLES, &roles).unwrap();
    let mut spec = spec(1, 1);
    (spec.uid, spec.tun_device, spec.limits.pids) = (None, tun, 40);
    let dir = host.prepare(&spec);
    for path in [&host.pods(), &dir, &dir.join("pod.json")] {
        chown(path, Some(worker), Some(worker)).unwrap();
    }
    let mut supervisor = std::process::Command::new(&roles);
    supervisor.args(["pod-supervisor", "--dir"]).arg(&dir).uid(worker).gid(worker).env_clear();
    let mut supervisor = supervisor.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    std::io::BufReader::new(supervisor.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(first.contains("\"answer\":\"status\""), "{first}");
    let (pod, status) = atoll_worker::supervisor::client::Pod::attach(&dir).await.unwrap();
    let pod = super::support::TestPod { pod, status, spec, device: super::support::device(1) };

    let Limits::Weak { why } = &pod.status.limits else { panic!("{:?}", pod.status.limits) };
    assert!(why.contains("cgroup") && why.contains("ermission denied"), "{why}");
    assert_eq!(pod.sh("id -u; ping -c 1 -W 1 10.77.0.1 > /dev/null; echo $?").await.1, "1000\n0\n");
    for attempt in ["unshare -U true", "ls /root", "touch /usr/x", "kill -0 2000000"] {
        assert_ne!(pod.sh(attempt).await.0, 0, "{attempt}");
    }
    let forks = "import os, time\nn = 0\ntry:\n  while n < 200:\n    if os.fork() == 0: time.sleep(20); os._exit(0)\n    n += 1\n\
                 except OSError: pass\nprint(n, flush=True)\nos.killpg(0, 9)";
    let (_, output) = pod.sh(&format!("setsid python3 -c '{forks}' | cat")).await;
    assert!(number(&output) < 40, "forked {output:?} with a limit of 40");
    let used =
        until("usage is recorded", async || Some(pod.pod.status().await.unwrap().usage).filter(|usage| usage.seq > 0));
    let used = used.await;
    assert!(used.memory_bytes > 1 << 20, "{used:?}");

    // A folder that its supervisor, now of the same user, cannot look into could hold anything.
    let (exit, _) = tokio::join!(pod.pod.wait(Duration::from_secs(20)), pod.sh("mkdir /job/shut && chmod 0 /job/shut"));
    let exit = exit.unwrap().expect("the pod is ended");
    assert_eq!(exit.reason, Reason::DiskLimit);
    assert!(exit.message.contains("cannot be looked into"), "{}", exit.message);
    supervisor.wait().unwrap();
    gone("the pod ends", pod.status.pod_pid).await;
    nobody_left(worker).await;
}
