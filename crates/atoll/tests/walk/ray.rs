//! Ray's own client through the control plane, and what a pod and the host can reach.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use atoll_worker::supervisor::client::keeper_of;
use atoll_worker::supervisor::spec::PodSpec;
use serde_json::{Value, json};

use crate::job::{Job, running};
use crate::network::{Network, address_of, fed, pack, text};
use crate::processes::Process;

/// An overlay address that no pod of these tests has.
const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 200, 200));

fn address(network: &Network, job: &Job) -> String {
    format!("https://127.0.0.1:{}/v1/clusters/{}/ray", network.told.ports.server, job.cluster)
}

fn certificate(network: &Network) -> PathBuf {
    network.folder.join("server/tls/cert.pem")
}

fn headers(key: &str) -> Value {
    json!({ "Authorization": format!("Bearer {key}") })
}

/// `ray job submit` with the renter's key; gives what it printed.
fn ray_job_submit(network: &Network, job: &Job, entry: &[&str]) -> String {
    let pack = pack();
    // The pack's programs name the interpreter at its path in a pod, so it is named here.
    let mut command = Command::new(pack.join("bin/python"));
    command.arg(pack.join("bin/ray")).args(["job", "submit", "--address", &address(network, job), "--verify"]);
    command.arg(certificate(network)).arg("--").args(entry).current_dir(&network.folder);
    command.env("RAY_JOB_HEADERS", headers(&network.profile().api_key).to_string());
    let output = command.output().unwrap();
    let printed = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success(), "`ray job submit` ended with {}: {printed}", output.status);
    printed
}

pub(crate) fn without_the_owners_key_ray_is_refused(network: &Network, job: &Job) {
    let right = network.profile().api_key;
    let wrong = format!("{}{}", &right[..right.len() - 4], if right.ends_with("0000") { "1111" } else { "0000" });
    let others = network.api_key("mallory", &address_of(&network.folder.join("wallets/supplier-1.json")));
    let asked = json!({
        "address": address(network, job),
        "ca": certificate(network),
        "headers": {"none": {}, "wrong": headers(&wrong), "another's": headers(&others)},
    });
    let mut command = Command::new(pack().join("bin/python"));
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/walk/ray_refused.py"));
    let output = fed(command, &asked.to_string());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    for (who, status) in [("none", 401), ("wrong", 401), ("another's", 404)] {
        assert_eq!(found[who]["status"], status, "{who}: {found}");
        assert!(found[who]["client"].as_str().unwrap().starts_with("refused"), "{who}: {found}");
    }
}

/// One job of Ray's shows both: its output arrives, and what its pod can reach.
pub(crate) fn ray_submits_and_its_pod_reaches_nothing_of_the_host(network: &Network, job: &Job) {
    let head = running(&job.show(network), "head").unwrap()["overlay_ip"].as_str().unwrap().to_owned();
    // Something of the host's that listens everywhere.
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let outward = SocketAddr::new(own_address(), listener.local_addr().unwrap().port());
    TcpStream::connect_timeout(&outward, Duration::from_secs(10)).expect("the host reaches its own listener");
    let (server, chain) = (network.told.ports.server, network.told.ports.chain);
    let (store, dashboard) = ("127.0.0.1:7070".to_owned(), format!("{head}:8265"));
    let closed = [
        format!("127.0.0.1:{server}"),
        format!("127.0.0.1:{chain}"),
        format!("{}:{server}", outward.ip()),
        format!("{}:{chain}", outward.ip()),
        outward.to_string(),
        "169.254.169.254:80".to_owned(),
        "10.77.0.254:22".to_owned(),
    ];
    let without_token = format!("http://{dashboard}/api/jobs/");
    let mut entry = vec!["python", "/job/src/probe.py", &store, &dashboard, &without_token];
    entry.extend(closed.iter().map(String::as_str));

    let printed = ray_job_submit(network, job, &entry);
    let line = printed.lines().find_map(|line| line.strip_prefix("PROBE "));
    let found: Value = serde_json::from_str(line.unwrap_or_else(|| panic!("no output of the job: {printed}"))).unwrap();
    for open in [&store, &dashboard] {
        assert_eq!(found[open], "connected", "the probe can connect at all: {found}");
    }
    assert_eq!(found[&without_token], "status 401", "the same cluster without its token");
    for target in closed {
        let said = found[&target].as_str().unwrap();
        assert!(said.contains("Error") || said.contains("timed out"), "{target} from inside the pod: {said}");
    }
}

/// The address that this machine has towards others; no packet is sent.
fn own_address() -> IpAddr {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    match socket.connect("192.0.2.1:9") {
        Ok(()) => socket.local_addr().unwrap().ip(),
        // Without a network there is only this one.
        Err(_) => [127, 0, 0, 2].into(),
    }
}

/// Some machines stand behind a gateway that accepts every connection for itself. So what answers at a pod's address, to
/// someone who even knows the cluster's token, must be what answers at an address that nobody has.
pub(crate) fn the_host_reaches_no_port_of_a_pod(network: &Network, job: &Job) {
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    let now = job.show(network);
    for pod in now["pods"].as_array().unwrap() {
        let role = network.role_of(pod["worker"].as_str().unwrap());
        let folder = network.folder.join(role).join("pods").join(pod["pod"].as_str().unwrap());
        let supervisor = Process::of(u32::try_from(keeper_of(&folder).unwrap().pid).unwrap()).unwrap();
        let inside = supervisor.children()[0].pid;
        assert_ne!(fs::read_link(format!("/proc/{inside}/ns/net")).unwrap(), own, "the pod has the host's network");
        let token = PodSpec::read(&folder).unwrap().env["RAY_AUTH_TOKEN"].clone();
        let ip: IpAddr = pod["overlay_ip"].as_str().unwrap().parse().unwrap();
        assert!(TcpListener::bind((ip, 0)).is_err(), "{ip} is an address of the host");
        for port in [6379, 8265] {
            let answer = answer_at(SocketAddr::new(ip, port), &token);
            assert!(!answer.to_lowercase().contains("ray"), "{ip}:{port} answers the host: {answer}");
            assert_eq!(answer, answer_at(SocketAddr::new(NOBODY, port), &token), "at {ip}:{port}");
        }
    }
}

/// The first line that an address answers to a question that Ray's dashboard would answer; else why not.
fn answer_at(address: SocketAddr, token: &str) -> String {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(3)))?;
        write!(stream, "GET /api/version HTTP/1.0\r\nhost: ray\r\nauthorization: Bearer {token}\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.take(4096).read_to_end(&mut answer)?;
        Ok(text(&answer).lines().next().unwrap_or_default().to_owned())
    };
    ask().unwrap_or_else(|error| format!("{:?}", error.kind()))
}
