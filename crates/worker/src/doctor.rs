//! `atoll worker doctor`: looks at everything a worker needs and says, for each, whether it is there and what cures it.
//!
//! Changes nothing but a few MiB that are written and deleted to measure the disk.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use atoll_chain::Keypair;
use atoll_domain::worker::Limits;

use crate::chain_view::{Reader, key};
use crate::config::{Config, DEVICE_KEY_FILE, Overrides};
use crate::outside::Outside;
use crate::probe::{self, CpuDevices, Machine};

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be.
    Fine,
    /// It works, and some will not want it.
    Weak,
    /// The worker cannot serve like this.
    Broken,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was looked at.
    pub what: &'static str,
    /// How it came out.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What cures it; empty when nothing needs to be.
    pub cure: String,
}

/// All checks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// In the order in which they were made.
    pub checks: Vec<Check>,
}

impl Report {
    /// 0 when nothing is broken, else 1.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        u8::from(self.checks.iter().any(|check| check.verdict == Verdict::Broken))
    }

    fn fine(&mut self, what: &'static str, found: impl Into<String>) {
        self.checks.push(Check { what, verdict: Verdict::Fine, found: found.into(), cure: String::new() });
    }

    fn bad(&mut self, what: &'static str, verdict: Verdict, found: impl ToString, cure: impl Into<String>) {
        self.checks.push(Check { what, verdict, found: found.to_string(), cure: cure.into() });
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for check in &self.checks {
            let mark = match check.verdict {
                Verdict::Fine => "ok    ",
                Verdict::Weak => "weak  ",
                Verdict::Broken => "broken",
            };
            writeln!(f, "{mark}  {}: {}", check.what, check.found)?;
            if !check.cure.is_empty() {
                writeln!(f, "        -> {}", check.cure)?;
            }
        }
        Ok(())
    }
}

/// Looks at everything.
pub async fn doctor(state: &Path, env: &BTreeMap<String, String>, flags: Overrides, outside: &dyn Outside) -> Report {
    let mut report = Report::default();
    system(&mut report);
    let config = match Config::load(state, env, flags) {
        Ok(config) => {
            report.fine("configuration", state.join(crate::config::FILE).display().to_string());
            config
        }
        Err(error) => {
            report.bad("configuration", Verdict::Broken, error, "run `atoll worker join`");
            return report;
        }
    };
    programs(&mut report, &config);
    machine(&mut report, state, &config);
    let device = match Keypair::load(&state.join(DEVICE_KEY_FILE)) {
        Ok(device) => {
            report.fine("device key", device.address().to_string());
            Some(device)
        }
        Err(error) => {
            report.bad("device key", Verdict::Broken, error, "run `atoll worker join`; a lost key is a new worker");
            None
        }
    };
    chain(&mut report, &config, device.as_ref(), outside).await;
    control(&mut report, &config).await;
    report
}

fn system(report: &mut Report) {
    let clone_limit = std::fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap_or_default();
    let debian = std::fs::read_to_string("/proc/sys/kernel/unprivileged_userns_clone").unwrap_or_default();
    let apparmor =
        std::fs::read_to_string("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").unwrap_or_default();
    let root = nix::unistd::geteuid().is_root();
    if clone_limit.trim() == "0" {
        let cure = "run `sysctl user.max_user_namespaces=10000`";
        report.bad("user namespaces", Verdict::Broken, "none are allowed", cure);
    } else if !root && (debian.trim() == "0" || apparmor.trim() == "1") {
        let cure = "run `sysctl kernel.unprivileged_userns_clone=1` and \
                    `sysctl kernel.apparmor_restrict_unprivileged_userns=0`, or the worker as root";
        report.bad("user namespaces", Verdict::Broken, "not for ordinary users", cure);
    } else {
        report.fine("user namespaces", if root { "allowed (running as root)" } else { "allowed" });
    }
}

fn programs(report: &mut Report, config: &Config) {
    match std::process::Command::new(&config.bwrap).arg("--version").env_clear().output() {
        Ok(output) if output.status.success() => {
            report.fine("bubblewrap", String::from_utf8_lossy(&output.stdout).trim().to_owned());
        }
        Ok(output) => report.bad("bubblewrap", Verdict::Broken, output.status, "run `apt install bubblewrap`"),
        Err(error) => report.bad(
            "bubblewrap",
            Verdict::Broken,
            format!("{}: {error}", config.bwrap.display()),
            "run `apt install bubblewrap`",
        ),
    }
    match std::fs::OpenOptions::new().read(true).write(true).open(&config.tun_device) {
        Ok(_) => report.fine("TUN device", config.tun_device.display().to_string()),
        Err(error) => report.bad(
            "TUN device",
            Verdict::Broken,
            format!("{}: {error}", config.tun_device.display()),
            "run as root once: `mknod -m 666 /var/lib/atoll/tun c 10 200`, and set tun_device to it",
        ),
    }
}

fn machine(report: &mut Report, state: &Path, config: &Config) {
    let devices = CpuDevices { count: config.devices };
    match probe::probe(state, &config.packs, &devices, config.cgroup.as_deref()) {
        Ok(Machine { facts, packs, .. }) => {
            let gib = |bytes: u64| bytes >> 30;
            let memory = gib(facts.memory_bytes);
            report.fine("machine", format!("{}, {} CPUs, {memory} GiB", facts.cpu, facts.cpu_count));
            let disk = format!("{} GiB free, {} MiB/s written", gib(facts.disk_free_bytes), facts.disk_write_mib_s);
            if gib(facts.disk_free_bytes) < 5 {
                report.bad("disk", Verdict::Weak, disk, "free some: a pod's folder and output live in --state");
            } else {
                report.fine("disk", disk);
            }
            if packs.is_empty() {
                let cure = "build one with `cargo xtask pack` and join again with --pack DIR";
                report.bad("packs", Verdict::Broken, "none: no job will be placed here", cure);
            } else {
                let names: Vec<String> = packs.iter().map(|(pack, _)| pack.name.clone()).collect();
                report.fine("packs", names.join(", "));
            }
            match facts.limits {
                Limits::Enforced => report.fine("limits", "memory, CPU and processes are held by cgroups"),
                Limits::Weak { why } => {
                    report.bad("limits", Verdict::Weak, "not enforced: this worker is not for strangers", why);
                }
            }
        }
        Err(error) => report.bad("machine", Verdict::Broken, error, "correct worker.toml, or join again"),
    }
}

async fn chain(report: &mut Report, config: &Config, device: Option<&Keypair>, outside: &dyn Outside) {
    let mut seed = [0; 8];
    outside.fill(&mut seed);
    let reader = match Reader::new(&config.rpc, u64::from_le_bytes(seed)) {
        Ok(reader) => reader,
        Err(why) => return report.bad("chain", Verdict::Broken, why, "correct `rpc` in worker.toml"),
    };
    match reader.network().await {
        Ok(network) if network == config.network => report.fine("chain", format!("network {network}")),
        Ok(network) => {
            let cure = "correct `rpc` in worker.toml, or join this network with another --state";
            return report.bad("chain", Verdict::Broken, format!("another network: {network}"), cure);
        }
        Err(why) => return report.bad("chain", Verdict::Broken, why, "check `rpc` in worker.toml and the network"),
    }
    let Some(device) = device else { return };
    match reader.slot(config.slot).await {
        Ok(Some(slot)) if slot.device_key == key(device.address()) => {
            let found = format!("slot {} of {}, {} device(s)", config.slot.slot, config.slot.page, slot.devices);
            if slot.suspended {
                let cure = "run `atoll worker run`: it clears the suspension once its link stands";
                report.bad("slot", Verdict::Weak, format!("{found}, suspended after a loss"), cure);
            } else {
                report.fine("slot", found);
            }
        }
        Ok(_) => report.bad("slot", Verdict::Broken, "it is not this device key's", "run `atoll worker join` again"),
        Err(why) => report.bad("slot", Verdict::Broken, why, "check `rpc` in worker.toml"),
    }
}

async fn control(report: &mut Report, config: &Config) {
    let operators = match config.operators() {
        Ok(operators) => operators,
        Err(error) => {
            return report.bad("control plane", Verdict::Broken, error, "correct `servers` and `ca` in worker.toml");
        }
    };
    for operator in operators {
        let mut reached = 0;
        for (number, server) in operator.servers().iter().enumerate() {
            match operator.link(number).await {
                Ok((mut socket, _)) => {
                    // The answer to a farewell is of no interest.
                    let _ = socket.close(None).await;
                    reached += 1;
                    report.fine("control plane", format!("{server} answers with the pinned certificate"));
                }
                // One of several may be away: the link moves to another.
                Err(error) => {
                    let cure = "check its address, its certificate and the firewall";
                    report.bad("control plane", Verdict::Weak, error, cure);
                }
            }
        }
        if reached == 0 {
            let cure = "check `servers` and `ca` in worker.toml, and the firewall";
            report.bad("control plane", Verdict::Broken, format!("operator {} is out of reach", operator.name()), cure);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outside::still::Still;

    #[test]
    fn only_what_is_broken_fails() {
        let mut report = Report::default();
        report.fine("a", "b");
        report.bad("limits", Verdict::Weak, "weak", "cure");
        assert_eq!(report.exit_code(), 0);
        report.bad("c", Verdict::Broken, "gone", "bring it back");
        assert_eq!(report.exit_code(), 1);
        assert!(report.to_string().contains("broken  c: gone\n        -> bring it back"));
    }

    #[tokio::test]
    async fn a_machine_that_never_joined_is_told_so() {
        let state = tempfile::tempdir().unwrap();
        let report = doctor(state.path(), &BTreeMap::new(), Overrides::default(), &Still::at(0)).await;
        let last = report.checks.last().unwrap();
        assert_eq!((last.what, last.verdict), ("configuration", Verdict::Broken));
        assert!(last.cure.contains("join"));
    }
}
