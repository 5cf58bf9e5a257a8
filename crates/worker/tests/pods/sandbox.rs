//! What a tenant cannot do.

use std::net::{TcpListener, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use super::support::{Host, gone, nobody_left, spec, until};

/// Each line is an attempt; its outcome is the errno's name, or OK.
const ATTEMPTS: &str = r#"
import ctypes, errno, os, socket, sys
host_port, lan, pid = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), '')
def attempt(name, action):
    try:
        action()
        print(name, 'OK')
    except OSError as error:
        print(name, errno.errorcode.get(error.errno, str(error.errno)))
def connect(family, address):
    s = socket.socket(family, socket.SOCK_STREAM)
    s.settimeout(3)
    s.connect(address)
def interface(request):
    import fcntl
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    fcntl.ioctl(s, request, b'tun0'.ljust(40, b'\0'))
attempt('tun', lambda: os.open('/dev/net/tun', os.O_RDWR))
attempt('mknod', lambda: os.mknod('/tmp/tun', 0o020666, os.makedev(10, 200)))
attempt('unshare-user', lambda: call(272, 0x10000000))
attempt('unshare-net', lambda: call(272, 0x40000000))
attempt('clone-user', lambda: call(56, 0x10000000 | 17, 0, 0, 0, 0))
attempt('clone3', lambda: call(435, 0, 0))
attempt('mount', lambda: call(165, b'x', b'/tmp', b'tmpfs', 0, 0))
attempt('keyctl', lambda: call(250, 0, 0))
attempt('bpf', lambda: call(321, 0, 0, 0))
attempt('userfaultfd', lambda: call(323, 0))
attempt('perf', lambda: call(298, 0, 0, 0, 0, 0))
attempt('io_uring', lambda: call(425, 1, 0))
attempt('ptrace', lambda: call(101, 0, 0, 0, 0))
attempt('x32', lambda: call(0x40000000 + 39))
attempt('tun-down', lambda: interface(0x8914))
attempt('raw', lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
attempt('packet', lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
attempt('vsock', lambda: socket.socket(40, socket.SOCK_STREAM))
attempt('host-loopback', lambda: connect(socket.AF_INET, ('127.0.0.1', host_port)))
attempt('host-lan', lambda: connect(socket.AF_INET, (lan, host_port)))
attempt('metadata', lambda: connect(socket.AF_INET, ('169.254.169.254', 80)))
attempt('internet', lambda: connect(socket.AF_INET, ('192.0.2.1', 443)))
attempt('host-abstract', lambda: connect(socket.AF_UNIX, '\0atoll-pod-test-%d' % pid))
attempt('host-root', lambda: os.listdir('/root'))
attempt('host-home', lambda: os.listdir('/home'))
attempt('write-usr', lambda: open('/usr/x', 'w'))
attempt('write-etc', lambda: open('/etc/x', 'w'))
attempt('write-root', lambda: open('/x', 'w'))
attempt('write-dev', lambda: open('/dev/x', 'w'))
attempt('kill-host', lambda: os.kill(pid, 0))
attempt('sysctl', lambda: open('/proc/sys/net/ipv4/ip_forward', 'w'))
attempt('kmsg', lambda: open('/dev/kmsg'))
attempt('sys', lambda: os.listdir('/sys'))
attempt('setuid', lambda: os.setuid(0))
attempt('job', lambda: open('/job/file', 'w'))
attempt('tmp', lambda: open('/tmp/file', 'w'))
attempt('shm', lambda: open('/dev/shm/file', 'w'))
attempt('null', lambda: open('/dev/null', 'w'))
"#;

const OUTCOMES: &str = "tun ENOENT\nmknod EPERM\nunshare-user EPERM\nunshare-net EPERM\nclone-user EPERM\nclone3 ENOSYS\n\
mount EPERM\nkeyctl EPERM\nbpf EPERM\nuserfaultfd EPERM\nperf EPERM\nio_uring EPERM\nptrace EPERM\nx32 EPERM\n\
tun-down EPERM\nraw EPERM\npacket EPERM\nvsock EPERM\nhost-loopback ECONNREFUSED\nhost-lan ENETUNREACH\n\
metadata ENETUNREACH\ninternet ENETUNREACH\nhost-abstract ECONNREFUSED\nhost-root ENOENT\nhost-home ENOENT\n\
write-usr EROFS\nwrite-etc EROFS\nwrite-root EROFS\nwrite-dev EROFS\nkill-host ESRCH\nsysctl EACCES\nkmsg ENOENT\n\
sys ENOENT\nsetuid EINVAL\njob OK\ntmp OK\nshm OK\nnull OK\n";

#[tokio::test]
#[cfg(target_arch = "x86_64")]
async fn every_attempt_to_get_out_is_refused() {
    let host = Host::new();
    let on_host = TcpListener::bind("0.0.0.0:0").unwrap();
    let probe = UdpSocket::bind("0.0.0.0:0").unwrap();
    probe.connect("192.0.2.1:9").unwrap();
    let lan = probe.local_addr().unwrap().ip();
    let name = format!("atoll-pod-test-{}", std::process::id());
    let _abstract = UnixListener::bind_addr(&SocketAddr::from_abstract_name(name).unwrap()).unwrap();

    let mut spec = spec(1, 1);
    let port = on_host.local_addr().unwrap().port().to_string();
    spec.argv = ["/usr/bin/python3", "-c", ATTEMPTS].map(str::to_owned).to_vec();
    spec.argv.extend([port, lan.to_string(), std::process::id().to_string()]);
    let pod = host.start(spec).await;
    let exit = pod.pod.wait(std::time::Duration::from_secs(60)).await.unwrap().expect("the attempts end");
    let mut printed = vec![0; 10_000];
    let (_, count) = atoll_worker::supervisor::output::read(pod.pod.dir(), 0, &mut printed).unwrap();
    assert_eq!(String::from_utf8_lossy(&printed[..count]), OUTCOMES, "{exit:?}");
}

/// The 32-bit entry: another architecture to seccomp, and death.
#[tokio::test]
#[cfg(target_arch = "x86_64")]
async fn the_32_bit_entry_kills() {
    let host = Host::new();
    let pod = host.start(spec(1, 1)).await;
    // mov eax, 20 (getpid); int 0x80; ret
    let code = "import ctypes, mmap; m = mmap.mmap(-1, 4096, prot=7); m.write(bytes.fromhex(\"b814000000cd80c3\")); \
                print(ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))())";
    let (status, output) = pod.python(code).await;
    assert_eq!((status, output.as_str()), (128 + nix::libc::SIGSYS, "Bad system call\n"));
}

#[tokio::test]
async fn the_tenant_sees_its_pod_and_no_more() {
    let host = Host::new();
    // Descriptors that a careless worker would leak.
    let leaked = std::fs::File::open("/etc/hostname").unwrap();
    nix::fcntl::fcntl(&leaked, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    assert!(leaked.as_raw_fd() > 2);
    let pack = host.dir.path().join("pack");
    std::fs::create_dir(&pack).unwrap();
    std::fs::write(pack.join("word"), "packed").unwrap();
    let mut spec = spec(1, 1);
    spec.binds.push(atoll_worker::supervisor::spec::Bind { host: pack, pod: "/opt/pack".into() });
    spec.env.insert("RAY_AUTH_TOKEN".into(), "not-for-the-host".into());
    let uid = spec.uid.unwrap();
    let pod = host.start(spec).await;

    let (_, command_line) = pod.sh("tr '\\0' ' ' < /proc/1/cmdline").await;
    assert!(command_line.starts_with("bwrap --args 3 -- /usr/bin/python3 -c"), "{command_line}");
    assert!(!command_line.contains(host.dir.path().to_str().unwrap()));
    assert_eq!(pod.sh("cat /proc/1/environ | wc -c").await.1.trim(), "0");
    assert_eq!(pod.sh("echo $RAY_AUTH_TOKEN $POD_IP $HOME").await.1, "not-for-the-host 10.77.0.1 /job\n");
    for pid in atoll_worker::runtime::procs::of_user(uid) {
        assert!(!atoll_worker::runtime::procs::command_line(pid).contains("not-for-the-host"));
    }
    assert_eq!(pod.sh("cat /opt/pack/word; echo x > /opt/pack/word").await.0, 2);
    let (_, descriptors) = pod.sh("cd /proc/self/fd && for fd in *; do readlink $fd; done").await;
    assert!(descriptors.lines().all(|line| line == "/dev/null" || line.starts_with("pipe:")), "{descriptors}");
    let held = std::fs::read_dir(format!("/proc/{}/fd", pod.status.supervisor_pid)).unwrap().flatten();
    let held: Vec<_> = held.filter_map(|fd| std::fs::read_link(fd.path()).ok()).collect();
    assert!(!held.contains(&"/etc/hostname".into()), "the supervisor holds what its worker had open: {held:?}");
    let (_, numbers) = pod.sh("grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status | tr -s '\\t' ' '").await;
    let none = "0000000000000000";
    let expected = format!(
        "CapInh: {none}\nCapPrm: {none}\nCapEff: {none}\nCapBnd: {none}\nCapAmb: {none}\nNoNewPrivs: 1\nSeccomp: 2\n"
    );
    assert_eq!(numbers, expected);
    assert_eq!(
        pod.sh("id -u; id -g; ls /sys/class/net 2>/dev/null; cut -d: -f1 /proc/net/dev | tail -n +3")
            .await
            .1
            .replace(' ', ""),
        "1000\n1000\nlo\ntun0\n"
    );
    assert_eq!(pod.sh("cat /proc/net/if_inet6 | grep -c tun0").await.1, "0\n", "no IPv6 on the overlay");
    let (_, cgroup) = pod.sh("cat /proc/self/cgroup").await;
    assert!(!cgroup.contains("atoll-"), "{cgroup}");
}

#[tokio::test]
async fn a_pod_runs_as_a_user_of_its_own_and_leaves_no_process() {
    let host = Host::new();
    let pod = host.start(spec(1, 1)).await;
    let uid = pod.spec.uid.unwrap();
    assert_eq!(
        pod.sh("touch /job/mine; (sleep 1000 &) > /dev/null 2>&1; setsid sleep 1000 > /dev/null 2>&1 & echo").await.0,
        0
    );
    let owner = std::fs::metadata(pod.pod.dir().join("job/mine")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&owner), uid);
    let running = atoll_worker::runtime::procs::of_user(uid);
    assert!(running.len() >= 5, "bubblewrap twice, door, shell, sleeps: {running:?}");
    let exit = pod.pod.stop(std::time::Duration::from_secs(5)).await.unwrap();
    assert_eq!(exit.reason, atoll_worker::supervisor::protocol::Reason::Stopped);
    nobody_left(uid).await;
    gone("the supervisor ends too", pod.status.supervisor_pid).await;
}

/// Secrets are for the worker's own user alone, and a directory that others could enter is made so.
#[tokio::test]
async fn the_directory_is_the_workers_own() {
    use std::os::unix::fs::PermissionsExt;
    let host = Host::new();
    let pod = host.start(spec(1, 1)).await;
    let mode = |name: &str| std::fs::metadata(pod.pod.dir().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("."), 0o700);
    for name in ["pod.json", "usage.jsonl", "output-0.log", "supervisor.json", "supervisor.log"] {
        assert_eq!(mode(name), 0o600, "{name}");
    }
    assert_eq!(mode("supervisor.sock") & 0o077, 0);
    // Were the modes wrong, the supervisor would still ask the kernel who is calling.
    for path in [pod.pod.dir().to_owned(), pod.pod.dir().join("supervisor.sock")] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
    }
    let ask = |uid: u32| {
        let code = "import os, socket, sys; os.chdir(sys.argv[1]); os.seteuid(int(sys.argv[2])); \
                    s = socket.socket(socket.AF_UNIX); s.connect('supervisor.sock')\n\
                    try: s.sendall(b'{\"op\":\"status\"}\\n'); print(len(s.recv(9)))\n\
                    except OSError: print('hung up')";
        let mut python = std::process::Command::new("/usr/bin/python3");
        let asked = python.args(["-c", code]).arg(pod.pod.dir()).arg(uid.to_string()).output().unwrap();
        assert!(asked.status.success(), "{asked:?}");
        String::from_utf8(asked.stdout).unwrap()
    };
    assert_eq!(ask(0), "9\n");
    assert!(["0\n", "hung up\n"].contains(&ask(pod.spec.uid.unwrap()).as_str()));
    until("the pod still stands", async || pod.pod.status().await.ok()).await;
}
