//! A host for pods, and a way to run commands in them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use atoll_domain::id::PodId;
use atoll_domain::key::PublicKey;
use atoll_domain::time::UnixMs;
use atoll_overlay::{PodKeyStatement, SignedStatement};
use atoll_worker::runtime::procs;
use atoll_worker::supervisor::client::{self, Pod};
use atoll_worker::supervisor::protocol::Status;
use atoll_worker::supervisor::spec::{AuthorisedKey, LimitSpec, OverlaySpec, PodSpec, Start};
use ed25519_dalek::SigningKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The program that knows the hidden roles.
pub(crate) const ROLES: &str = env!("CARGO_BIN_EXE_atoll-pod-roles");

/// A shell for tests: on the pod's overlay address, port 9000, one script a connection; answers its status and output.
pub(crate) const SHELL: &str = r"
import os, socketserver, subprocess
class Shell(socketserver.StreamRequestHandler):
    def handle(self):
        command = self.rfile.read().decode()
        done = subprocess.run(['sh', '-c', command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.wfile.write(b'%d\n' % done.returncode + done.stdout)
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
    request_queue_size = 128
print('shell is up', flush=True)
Server((os.environ['POD_IP'], 9000), Shell).serve_forever()
";

/// The port of [`SHELL`].
pub(crate) const SHELL_PORT: u16 = 9000;

/// Longest any single thing here may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Fails with the one line that says what to do.
pub(crate) fn require() {
    let programs =
        [("/usr/bin/bwrap", "bubblewrap"), ("/usr/bin/ping", "iputils-ping"), ("/usr/bin/python3", "python3")];
    for (program, package) in programs {
        assert!(Path::new(program).exists(), "{program} is missing; as root: apt-get install -y {package}");
    }
    assert!(nix::unistd::geteuid().is_root(), "the pod tests need root: they check users, cgroups and devices");
    assert!(
        Path::new("/dev/net/tun").exists(),
        "no TUN device; mkdir -p /dev/net && mknod -m 600 /dev/net/tun c 10 200"
    );
}

/// A folder with pods; everything in it ends with the test.
pub(crate) struct Host {
    pub(crate) dir: tempfile::TempDir,
}

/// One pod and what its worker knows.
pub(crate) struct TestPod {
    pub(crate) pod: Pod,
    pub(crate) status: Status,
    pub(crate) spec: PodSpec,
    pub(crate) device: SigningKey,
}

impl Drop for TestPod {
    fn drop(&mut self) {
        let alive = client::keeper_of(self.pod.dir()).filter(client::is_alive);
        if let Some(keeper) = alive {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(keeper.pid), nix::sys::signal::Signal::SIGKILL);
        }
        client::sweep(self.pod.dir());
    }
}

/// A user id that no other pod of this or another run has.
pub(crate) fn fresh_uid() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    200_000 + (std::process::id() % 20_000) * 100 + NEXT.fetch_add(1, Ordering::Relaxed)
}

#[expect(clippy::disallowed_methods, reason = "real pods keep real time")]
pub(crate) fn unix_ms() -> UnixMs {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    UnixMs(u64::try_from(since.as_millis()).unwrap())
}

/// The device key of worker `n`.
pub(crate) fn device(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

/// What the chain says about worker `n`.
pub(crate) fn authorised(n: u8) -> AuthorisedKey {
    AuthorisedKey { device_key: PublicKey(device(n).verifying_key().to_bytes()), lease: PublicKey([n; 32]) }
}

/// Pod `n` of order `order`: a shell, started at once.
pub(crate) fn spec(order: u8, n: u8) -> PodSpec {
    static NEXT: AtomicU8 = AtomicU8::new(0);
    let mut id = [n; 16];
    id[0] = NEXT.fetch_add(1, Ordering::Relaxed);
    id[1..5].copy_from_slice(&std::process::id().to_le_bytes());
    PodSpec {
        pod: PodId::from_random(id),
        order: PublicKey([order; 32]),
        lease: PublicKey([n; 32]),
        fence: 1,
        overlay: OverlaySpec {
            ip: [10, 77, 0, n].into(),
            prefix_bits: 16,
            bind: "127.0.0.1:0".parse().unwrap(),
            announce: "127.0.0.1".parse().unwrap(),
        },
        argv: ["/usr/bin/python3", "-c", SHELL].map(str::to_owned).to_vec(),
        env: BTreeMap::new(),
        binds: vec![],
        limits: LimitSpec {
            memory_bytes: 512 << 20,
            cpu_milli: 2000,
            pids: 128,
            disk_bytes: 64 << 20,
            shm_bytes: 16 << 20,
            tmp_bytes: 16 << 20,
            output_bytes: 1 << 20,
        },
        uid: Some(fresh_uid()),
        start: Start::AtOnce,
        ends_at: unix_ms().after(Duration::from_secs(600)),
        grace_ms: 30_000,
        authorised: vec![],
        worker_socket: None,
        tun_device: "/dev/net/tun".into(),
        bwrap: "/usr/bin/bwrap".into(),
        cgroup: None,
        usage_period_ms: 200,
    }
}

impl Host {
    pub(crate) fn new() -> Self {
        require();
        Self { dir: tempfile::Builder::new().prefix("atoll-pods-").tempdir().unwrap() }
    }

    pub(crate) fn pods(&self) -> PathBuf {
        self.dir.path().join("pods")
    }

    pub(crate) fn prepare(&self, spec: &PodSpec) -> PathBuf {
        let dir = self.pods().join(spec.pod.to_string());
        client::prepare(&dir, spec).unwrap();
        dir
    }

    pub(crate) async fn start(&self, spec: PodSpec) -> TestPod {
        let dir = self.prepare(&spec);
        let (pod, status) = Pod::spawn(Path::new(ROLES), &dir).await.unwrap();
        let [n, ..] = spec.lease.0;
        TestPod { pod, status, spec, device: device(n) }
    }

    /// Why a pod cannot be had.
    pub(crate) async fn refusal(&self, spec: &PodSpec) -> String {
        let dir = self.prepare(spec);
        let error = Pod::spawn(Path::new(ROLES), &dir).await.expect_err("this pod must not start");
        format!("{error:#}")
    }
}

impl TestPod {
    /// The worker's statement of this pod's key.
    pub(crate) fn statement(&self) -> SignedStatement {
        self.said().sign(&self.device)
    }

    pub(crate) fn said(&self) -> PodKeyStatement {
        PodKeyStatement {
            order: self.spec.order.0,
            lease: self.spec.lease.0,
            overlay_ip: self.spec.overlay.ip,
            wg_public: self.status.wg_public.0,
            endpoint: self.status.endpoint,
            expires_at_unix_s: unix_ms().secs() + 600,
        }
    }

    /// Runs a command in the pod's shell; waits for the shell to come up.
    pub(crate) async fn sh(&self, command: &str) -> (i32, String) {
        self.sh_within(PATIENCE, command).await
    }

    /// The same with more patience.
    pub(crate) async fn sh_within(&self, patience: Duration, command: &str) -> (i32, String) {
        let stream = until("the shell answers", async || self.pod.dial(SHELL_PORT).await.ok()).await;
        let mut stream = stream.into_inner();
        stream.write_all(command.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        tokio::time::timeout(patience, stream.read_to_end(&mut answer)).await.expect("the command ends").unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (code, output) = answer.split_once('\n').unwrap_or(("-1", ""));
        (code.parse().unwrap(), output.to_owned())
    }

    /// Runs Python in the pod: `code` must not contain single quotes.
    pub(crate) async fn python(&self, code: &str) -> (i32, String) {
        assert!(!code.contains(['\'', '\n']));
        self.sh(&format!("python3 -c '{code}'")).await
    }
}

/// Waits for a condition.
pub(crate) async fn until<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(tokio::time::Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until a process is gone (or only a zombie of somebody else's).
pub(crate) async fn gone(what: &str, pid: i32) {
    until(what, async || procs::command_line(pid).is_empty().then_some(())).await;
}

/// Waits until no process of a user is left.
pub(crate) async fn nobody_left(uid: u32) {
    until("no process of the pod's user is left", async || procs::of_user(uid).is_empty().then_some(())).await;
}
