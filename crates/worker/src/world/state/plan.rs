//! What this machine is, and the pod that follows from a command: pure composition, no choice of the control plane's.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use atoll_domain::job::PackRef;
use atoll_domain::key::{Digest, PublicKey, SecretKey};
use atoll_domain::time::UnixMs;
use atoll_domain::worker::SlotRef;
use atoll_overlay::statement::PodKeyStatement;
use ed25519_dalek::SigningKey;

use crate::chain_view::OrderView;
use crate::runtime::uid;
use crate::supervisor::spec::{AuthorisedKey, Bind, LimitSpec, OverlaySpec, PodSpec, Start as StartWhen};
use crate::world::command::Start;
use crate::world::store::PodRecord;

/// Grace after a lease's end before its pod is killed; the supervisor keeps it even with the worker gone.
pub(super) const GRACE: Duration = Duration::from_secs(30);
/// How long after the end of its lease a pod key statement still holds. A lease may be lengthened, and no pod is vouched for
/// twice; clocks of peers may be minutes off. What lets a peer in, and out again, is the chain and not this time.
const STATEMENT_KEPT_S: u64 = 400 * 86_400;
/// The overlay of a cluster is 10.77.0.0/16.
const OVERLAY_PREFIX_BITS: u32 = 16;
/// Where the store answers inside the pod.
const STORE: &str = "http://127.0.0.1:7070";
/// Names that are this worker's to set, whatever a command says.
const OWN_NAMES: [&str; 5] = ["ATOLL_STORE", "ATOLL_JOB", "ATOLL_BUNDLE_SHA256", "ATOLL_ROLE", "RAY_AUTH_MODE"];

/// This worker and its machine.
#[derive(Debug)]
pub struct Me {
    /// The device key.
    pub device: SecretKey,
    /// Its public half.
    pub public: PublicKey,
    /// The slot on the chain.
    pub slot: SlotRef,
    /// The network that specifications must be signed for.
    pub network: Digest,
    /// Where other supervisors reach this machine.
    pub announce: IpAddr,
    /// Packs and their folders.
    pub packs: Vec<(PackRef, PathBuf)>,
    /// The folder with Atoll's Python package, for /opt/atoll.
    pub sdk: PathBuf,
    /// The worker's unix socket for pods' store connections.
    pub socket: PathBuf,
    /// What one device of this machine brings.
    pub device_share: LimitSpec,
    /// Whether each pod gets a user id of its own.
    pub root: bool,
    /// The TUN device.
    pub tun_device: PathBuf,
    /// The bubblewrap program.
    pub bwrap: PathBuf,
    /// Where pods' cgroups are made, if not below the worker's own.
    pub cgroup: Option<PathBuf>,
}

impl Me {
    /// The folder of a pack with exactly this name and content.
    #[must_use]
    pub fn pack(&self, wanted: &PackRef) -> Option<&PathBuf> {
        self.packs.iter().find(|(pack, _)| pack == wanted).map(|(_, folder)| folder)
    }

    /// The pod that an accepted command asks for.
    pub(super) fn plan(&self, start: &Start, end_s: i64, view: &OrderView, now: UnixMs) -> PodSpec {
        let devices = u64::from(start.mask.count_ones());
        let folder = self.pack(&start.spec.pack).cloned().unwrap_or_default();
        let any = if self.announce.is_loopback() { self.announce } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
        let overlay = OverlaySpec {
            ip: start.index.address(),
            prefix_bits: OVERLAY_PREFIX_BITS,
            bind: SocketAddr::new(any, 0),
            announce: self.announce,
        };
        PodSpec {
            pod: start.pod,
            order: start.order,
            lease: start.lease,
            fence: start.fence,
            overlay,
            argv: ["/opt/venv/bin/python", "-m", "atoll.pod"].map(str::to_owned).to_vec(),
            env: environment(start),
            binds: vec![
                Bind { host: folder, pod: "/opt/venv".into() },
                Bind { host: self.sdk.clone(), pod: "/opt/atoll".into() },
            ],
            limits: times(&self.device_share, devices),
            uid: self.root.then(|| uid_of(start)),
            start: StartWhen::OnRun,
            ends_at: local_end(end_s, view, now),
            grace_ms: u64::try_from(GRACE.as_millis()).unwrap_or(u64::MAX),
            authorised: authorised(view),
            worker_socket: Some(self.socket.clone()),
            tun_device: self.tun_device.clone(),
            bwrap: self.bwrap.clone(),
            cgroup: self.cgroup.clone(),
            usage_period_ms: 1_000,
        }
    }

    /// The signed statement that makes a pod's key count with its peers.
    pub(super) fn vouch(&self, record: &PodRecord, wg_public: [u8; 32], endpoint: SocketAddr) -> Vec<u8> {
        // By the chain's clock: all of a lease's statements say the same, whatever is done to this machine's.
        let end_s = u64::try_from(record.end_s).unwrap_or(0);
        let statement = PodKeyStatement {
            order: record.order.0,
            lease: record.lease.0,
            overlay_ip: record.index.address(),
            wg_public,
            endpoint,
            expires_at_unix_s: end_s.saturating_add(STATEMENT_KEPT_S),
        };
        statement.sign(&SigningKey::from_bytes(&self.device.seed())).to_bytes()
    }
}

pub(super) fn authorised(view: &OrderView) -> Vec<AuthorisedKey> {
    let key = |one: crate::chain_view::Authorised| AuthorisedKey { device_key: one.device_key, lease: one.lease };
    view.authorised().into_iter().map(key).collect()
}

/// A lease's end on this machine's clock: as far ahead of now as it is on the chain's.
pub(super) fn local_end(end_s: i64, view: &OrderView, now: UnixMs) -> UnixMs {
    let left = u64::try_from(end_s.saturating_sub(view.now_s)).unwrap_or(0);
    now.after(Duration::from_secs(left))
}

/// What of a command's environment goes into the pod.
pub(super) fn passed_on(mut env: BTreeMap<String, String>) -> BTreeMap<String, String> {
    env.retain(|name, _| !OWN_NAMES.contains(&name.as_str()));
    env
}

/// The tenant's variables, then the control plane's, then this worker's: the later wins.
fn environment(start: &Start) -> BTreeMap<String, String> {
    let mut env = start.spec.env.clone();
    env.entry("OMP_NUM_THREADS".into()).or_insert_with(|| "1".into());
    env.insert("ATOLL_WORLD".into(), start.spec.devices.to_string());
    env.extend(passed_on(start.env.clone()));
    let own = [
        ("ATOLL_STORE", STORE.to_owned()),
        ("ATOLL_JOB", start.job.to_string()),
        ("ATOLL_BUNDLE_SHA256", start.spec.bundle.sha256.to_string()),
        ("ATOLL_ROLE", start.role.word().to_owned()),
        ("POD_IP", start.index.address().to_string()),
        ("RAY_AUTH_MODE", "token".to_owned()),
        ("GLOO_SOCKET_IFNAME", "tun0".to_owned()),
        ("PYTHONPATH", "/opt/atoll".to_owned()),
    ];
    env.extend(own.map(|(name, value)| (name.to_owned(), value)));
    env
}

fn times(one: &LimitSpec, devices: u64) -> LimitSpec {
    LimitSpec {
        memory_bytes: one.memory_bytes.saturating_mul(devices),
        cpu_milli: one.cpu_milli.saturating_mul(devices),
        pids: one.pids.saturating_mul(devices),
        disk_bytes: one.disk_bytes.saturating_mul(devices),
        shm_bytes: one.shm_bytes.saturating_mul(devices),
        tmp_bytes: one.tmp_bytes.saturating_mul(devices),
        output_bytes: one.output_bytes,
    }
}

/// Where the search for the pod's own user id begins ([`uid::claim`] ends it).
fn uid_of(start: &Start) -> u32 {
    let digest = Digest::of(start.pod.to_string().as_bytes()).0;
    uid::FIRST + u32::from(u16::from_le_bytes([digest[0], digest[1]]))
}
