//! Ray and torch in three pods: what a cluster is made of, without anything that decides about it.

use std::path::PathBuf;
use std::time::Duration;

use atoll_overlay::SignedStatement;
use atoll_worker::supervisor::spec::{Bind, PodSpec};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::support::{Host, TestPod, authorised, spec, until};

/// The token of this cluster; without it Ray runs code for anyone who reaches it.
const TOKEN: &str = "000102030405060708090a0b0c0d0e0f1011121314151617";

/// Waits for three nodes, then sums ranks over gloo between one actor on each.
const DRIVER: &str = r#"
import os, socket, time, ray
ray.init(address='auto', log_to_driver=False)
deadline = time.monotonic() + 90
while sum(node['Alive'] for node in ray.nodes()) < 3 and time.monotonic() < deadline:
    time.sleep(0.2)
@ray.remote(num_cpus=1)
class Rank:
    def run(self, rank, world, head):
        import torch, torch.distributed as dist
        dist.init_process_group('gloo', init_method=f'tcp://{head}:29500', rank=rank, world_size=world)
        value = torch.tensor([float(rank + 1)])
        dist.all_reduce(value)
        dist.destroy_process_group()
        return os.environ['POD_IP'], value.item()
    def ip(self):
        return os.environ['POD_IP']
ranks = [Rank.options(scheduling_strategy='SPREAD').remote() for _ in range(3)]
ips = ray.get([rank.ip.remote() for rank in ranks])
found = ray.get([rank.run.remote(n, 3, ips[0]) for n, rank in enumerate(ranks)])
print(sorted(ip for ip, _ in found), {value for _, value in found})
"#;

/// The pack that `cargo xtask pack` builds.
fn pack() -> PathBuf {
    let packs = std::env::var_os("ATOLL_PACKS").map(PathBuf::from);
    let packs = packs.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/packs"));
    let pack = packs.join("ray-torch");
    assert!(pack.join("pack.json").exists(), "no pack at {}; run: cargo xtask pack ray-torch", pack.display());
    pack.canonicalize().unwrap()
}

fn member(n: u8) -> PodSpec {
    let mut member = spec(5, n);
    member.authorised = [1, 2, 3].map(authorised).to_vec();
    member.binds = vec![Bind { host: pack(), pod: "/opt/venv".into() }];
    // Ray's processes have many threads, and the kernel counts those.
    (member.limits.memory_bytes, member.limits.pids, member.limits.cpu_milli) = (3 << 30, 4096, 4000);
    (member.limits.shm_bytes, member.limits.tmp_bytes) = (256 << 20, 1 << 30);
    let env = [
        ("RAY_AUTH_MODE", "token"),
        ("RAY_AUTH_TOKEN", TOKEN),
        ("RAY_USAGE_STATS_ENABLED", "0"),
        ("GLOO_SOCKET_IFNAME", "tun0"),
        ("OMP_NUM_THREADS", "1"),
    ];
    member.env.extend(env.map(|(name, value)| (name.to_owned(), value.to_owned())));
    member
}

async fn ray_start(pod: &TestPod, how: &str) {
    let command = format!(
        "setsid /opt/venv/bin/python -m ray.scripts.scripts start {how} --block --node-ip-address $POD_IP --num-cpus 1 \
         --memory 1500000000 --object-store-memory 100000000 --disable-usage-stats > /job/ray.log 2>&1 &"
    );
    assert_eq!(pod.sh(&command).await.0, 0);
}

/// The status line of Ray's dashboard on the head, asked through the door.
async fn dashboard(head: &TestPod, credentials: &str) -> Option<String> {
    let mut stream = head.pod.dial(8265).await.ok()?.into_inner();
    let request = format!("GET /api/version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{credentials}\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    answer.split(' ').nth(1).map(str::to_owned)
}

#[tokio::test]
async fn ray_spans_three_pods_and_asks_for_its_token() {
    let host = Host::new();
    let (head, two, three) = (host.start(member(1)).await, host.start(member(2)).await, host.start(member(3)).await);
    let pods = [&head, &two, &three];
    let statements: Vec<SignedStatement> = pods.map(TestPod::statement).to_vec();
    for pod in pods {
        pod.pod.roster(&statements, None).await.unwrap();
    }
    let ports = "--head --port 6379 --dashboard-host $POD_IP --dashboard-port 8265 --temp-dir /tmp/ray";
    ray_start(&head, ports).await;
    for worker in [&two, &three] {
        ray_start(worker, "--address 10.77.0.1:6379").await;
    }
    until("the dashboard answers", async || dashboard(&head, "").await).await;
    assert_eq!(dashboard(&head, "").await.as_deref(), Some("401"));
    assert_eq!(dashboard(&head, "Authorization: Bearer 00ff\r\n").await.as_deref(), Some("403"));
    assert_eq!(dashboard(&head, &format!("Authorization: Bearer {TOKEN}\r\n")).await.as_deref(), Some("200"));

    std::fs::write(head.pod.dir().join("job/driver.py"), DRIVER).unwrap();
    let (status, output) = head.sh_within(Duration::from_secs(180), "/opt/venv/bin/python /job/driver.py 2>&1").await;
    let logs = head.sh("tail -n 20 /job/ray.log").await.1;
    assert_eq!(status, 0, "{output}\n{logs}");
    let expected = "['10.77.0.1', '10.77.0.2', '10.77.0.3'] {6.0}";
    assert_eq!(output.lines().last(), Some(expected), "{output}\n{logs}");
}
