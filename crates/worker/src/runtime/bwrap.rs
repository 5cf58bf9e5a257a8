//! Bubblewrap's arguments for one pod. Pure; init passes them by descriptor, so no host path shows in the pod's
//! /proc/1/cmdline and no secret in the host's process list.

use std::collections::BTreeMap;
use std::path::Path;

use crate::supervisor::spec::PodSpec;

/// Descriptor on which bubblewrap finds these arguments.
pub const ARGUMENTS_FD: i32 = 3;
/// Descriptor on which it finds the seccomp program.
pub const SECCOMP_FD: i32 = 4;

/// Files of /etc in every pod, beside links to the host's loader cache and alternatives.
pub const ETC_FILES: [(&str, &str); 7] = [
    ("passwd", "root:x:0:0::/nonexistent:/bin/false\npod:x:1000:1000::/job:/bin/sh\n"),
    ("group", "root:x:0:\npod:x:1000:\n"),
    ("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n"),
    ("resolv.conf", ""),
    ("hosts", "127.0.0.1 localhost\n"),
    // Something to mount the host's over.
    ("ld.so.cache", ""),
    ("localtime", ""),
];

/// Where the pod's pieces lie on the host, as bubblewrap's user can reach them.
#[derive(Debug)]
pub struct Sources<'a> {
    /// Becomes /etc.
    pub etc: &'a Path,
    /// Becomes /job, the only writable place that outlives the program.
    pub job: &'a Path,
    /// One for each of `PodSpec::binds`.
    pub binds: &'a [std::path::PathBuf],
}

/// The arguments, without the program (bubblewrap wants that on its real command line).
#[must_use]
pub fn arguments(spec: &PodSpec, env: &BTreeMap<String, String>, sources: &Sources<'_>) -> Vec<String> {
    let mut line = Line::default();
    line.words("--unshare-user --uid 1000 --gid 1000 --unshare-pid --unshare-ipc --unshare-uts --unshare-cgroup-try");
    line.words("--die-with-parent --new-session --disable-userns --cap-drop ALL");
    line.option("--seccomp", &[&SECCOMP_FD.to_string()]);
    line.option("--hostname", &[&spec.pod.to_string().replace('_', "-")]);
    line.words("--ro-bind /usr /usr --symlink usr/bin /bin --symlink usr/lib /lib --symlink usr/lib64 /lib64");
    line.words("--symlink usr/sbin /sbin");
    line.option("--ro-bind", &[&text(sources.etc), "/etc"]);
    line.words("--ro-bind-try /etc/ld.so.cache /etc/ld.so.cache --ro-bind-try /etc/alternatives /etc/alternatives");
    for (bind, source) in spec.binds.iter().zip(sources.binds) {
        line.option("--ro-bind", &[&text(source), &text(&bind.pod)]);
    }
    line.words("--proc /proc --dev /dev");
    line.option("--size", &[&spec.limits.shm_bytes.to_string(), "--perms", "1777", "--tmpfs", "/dev/shm"]);
    line.option("--size", &[&spec.limits.tmp_bytes.to_string(), "--perms", "1777", "--tmpfs", "/tmp"]);
    line.option("--bind", &[&text(sources.job), "/job"]);
    line.words("--chdir /job --remount-ro /dev --remount-ro / --clearenv");
    for (name, value) in environment(spec, env) {
        line.option("--setenv", &[&name, &value]);
    }
    line.0
}

/// The pod's whole environment: defaults, then `pod.json`, then what came with the run.
fn environment(spec: &PodSpec, env: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let defaults = [
        ("HOME", "/job".to_owned()),
        ("PATH", "/opt/venv/bin:/usr/bin:/bin".to_owned()),
        ("LANG", "C.UTF-8".to_owned()),
        ("POD_IP", spec.overlay.ip.to_string()),
    ];
    let mut all: BTreeMap<String, String> = defaults.map(|(name, value)| (name.to_owned(), value)).into();
    all.extend(spec.env.clone());
    all.extend(env.clone());
    all
}

fn text(path: &Path) -> String {
    // Paths come from pod.json, which is UTF-8, or from this program.
    path.to_string_lossy().into_owned()
}

#[derive(Default)]
struct Line(Vec<String>);

impl Line {
    fn words(&mut self, words: &str) {
        self.0.extend(words.split_whitespace().map(str::to_owned));
    }

    fn option(&mut self, name: &str, values: &[&str]) {
        self.0.push(name.to_owned());
        self.0.extend(values.iter().map(|value| (*value).to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::spec::{Bind, tests::spec};

    #[test]
    fn the_tenants_values_stay_values() {
        let mut spec = spec();
        spec.binds.push(Bind { host: "/srv/pack".into(), pod: "/opt/venv".into() });
        spec.env.insert("A".into(), "--share-net".into());
        let later = [("A".to_owned(), "--bind / /host".to_owned())].into();
        let staged = ["/stage/b0".into()];
        let sources = Sources { etc: Path::new("/stage/etc"), job: Path::new("/stage/job"), binds: &staged };
        let line = arguments(&spec, &later, &sources);
        let at = line.iter().position(|word| word == "A").unwrap();
        assert_eq!(line[at - 1..=at + 1], ["--setenv", "A", "--bind / /host"], "one word, and the later one wins");
        let at = line.iter().position(|word| word == "/opt/venv").unwrap();
        assert_eq!(line[at - 2..=at], ["--ro-bind", "/stage/b0", "/opt/venv"]);
        assert!(!line.iter().any(|word| word.contains("/srv/pack")));
        for needed in ["--unshare-user", "--unshare-pid", "--disable-userns", "--die-with-parent", "--clearenv"] {
            assert!(line.iter().any(|word| word == needed), "{needed}");
        }
        assert!(!line.iter().any(|word| word == "--unshare-net"), "init made the network namespace");
    }
}
