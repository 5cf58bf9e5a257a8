//! Rules of the repository that are tests: who may know whom, what may be linked, what may be committed.

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::PathBuf;
    use std::process::Command;

    use serde_json::Value;

    /// Which of our crates each of our crates may depend on (normal and build dependencies). See ARCHITECTURE.md.
    const MAY_KNOW: &[(&str, &[&str])] = &[
        ("atoll-interface", &[]),
        ("atoll-market-tests", &["atoll-domain", "atoll-interface", "atoll-fuzz"]),
        ("atoll-domain", &["atoll-interface"]),
        ("atoll-api", &["atoll-domain"]),
        ("atoll-chain", &["atoll-interface"]),
        ("atoll-overlay", &[]),
        ("atoll-life", &[]),
        ("atoll-fuzz", &[]),
        ("atoll-control", &["atoll-api", "atoll-chain", "atoll-domain", "atoll-interface", "atoll-life"]),
        (
            "atoll-worker",
            &["atoll-api", "atoll-chain", "atoll-domain", "atoll-interface", "atoll-life", "atoll-overlay"],
        ),
        ("atoll-cli", &["atoll-api", "atoll-chain", "atoll-domain", "atoll-interface"]),
        (
            "atoll",
            &[
                "atoll-api",
                "atoll-chain",
                "atoll-cli",
                "atoll-control",
                "atoll-domain",
                "atoll-interface",
                "atoll-overlay",
                "atoll-worker",
            ],
        ),
        (
            "atoll-sim",
            &[
                "atoll-api",
                "atoll-chain",
                "atoll-control",
                "atoll-domain",
                "atoll-interface",
                "atoll-life",
                "atoll-overlay",
                "atoll-worker",
            ],
        ),
        ("atoll-placement-bench", &[]),
        ("xtask", &[]),
    ];

    /// Crates that deciding code must not reach, not even through others.
    const NOT_IN_DOMAIN: &[&str] =
        &["tokio", "rusqlite", "tokio-postgres", "reqwest", "rand", "getrandom", "hyper", "axum", "libc"];

    fn root() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
    }

    fn cargo(arguments: &[&str]) -> String {
        let output = Command::new("cargo").args(arguments).current_dir(root()).output().unwrap();
        assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn metadata(arguments: &[&str]) -> Value {
        let fixed = ["metadata", "--locked", "--offline", "--format-version", "1"];
        serde_json::from_str(&cargo(&[&fixed[..], arguments].concat())).unwrap()
    }

    /// Names and versions of everything linked into a build of `atoll`.
    fn linked(features: &[&str]) -> BTreeSet<String> {
        let fixed = ["tree", "--locked", "--offline", "-p", "atoll", "-e", "normal", "--prefix", "none", "-f", "{p}"];
        let tree = cargo(&[&fixed[..], features].concat());
        tree.lines().map(|line| line.split(" (").next().unwrap().to_owned()).filter(|line| !line.is_empty()).collect()
    }

    #[test]
    fn crates_know_only_whom_they_may() {
        let metadata = metadata(&["--no-deps"]);
        let packages = metadata["packages"].as_array().unwrap();
        let ours: BTreeSet<&str> = packages.iter().map(|package| package["name"].as_str().unwrap()).collect();
        let rules: BTreeMap<&str, &[&str]> = MAY_KNOW.iter().copied().collect();
        assert_eq!(ours, rules.keys().copied().collect(), "a crate without a rule, or a rule without a crate");
        for package in packages {
            let name = package["name"].as_str().unwrap();
            for dependency in package["dependencies"].as_array().unwrap() {
                let known = dependency["name"].as_str().unwrap();
                let for_tests = dependency["kind"] == "dev";
                assert!(
                    for_tests || !ours.contains(known) || rules[name].contains(&known),
                    "{name} must not know {known}"
                );
            }
        }
    }

    #[test]
    fn deciding_code_reaches_no_clock_no_randomness_no_network() {
        let tree = cargo(&[
            "tree",
            "--locked",
            "--offline",
            "-p",
            "atoll-domain",
            "-e",
            "normal",
            "--prefix",
            "none",
            "-f",
            "{p}",
        ]);
        for line in tree.lines() {
            let name = line.split(' ').next().unwrap();
            assert!(!NOT_IN_DOMAIN.contains(&name), "atoll-domain reaches {name}");
        }
    }

    #[test]
    fn one_tls_one_crypto_provider_and_few_crates() {
        let lean = linked(&["--no-default-features"]);
        for banned in ["openssl", "openssl-sys", "native-tls", "aws-lc-rs", "aws-lc-sys"] {
            assert!(!lean.iter().any(|it| it.split(' ').next() == Some(banned)), "{banned} is linked without `local`");
        }
        assert!(lean.len() <= 350, "{} crates without `local`; at most 350", lean.len());
        let full = linked(&[]);
        assert!(full.len() <= 650, "{} crates with `local`; at most 650", full.len());
        assert!(full.iter().any(|it| it.starts_with("litesvm ")), "the comparison must see litesvm with `local`");
    }

    #[test]
    fn what_is_committed_is_clean() {
        let listed = Command::new("git").args(["ls-files"]).current_dir(root()).output().unwrap();
        // Written in parts, so that this file does not hold what it looks for.
        let banned = [
            ["/ro", "ot/"].concat(),
            ["/wo", "rk/"].concat(),
            ["/fa", "rm/"].concat(),
            ["/opt/atoll-", "toolchain"].concat(),
        ];
        for path in String::from_utf8(listed.stdout).unwrap().lines() {
            let Ok(text) = std::fs::read_to_string(root().join(path)) else { continue };
            for word in &banned {
                let own = |at: usize| at > 0 && text.as_bytes()[at - 1].is_ascii_alphanumeric();
                let hit = text
                    .match_indices(word.as_str())
                    .any(|(at, _)| !own(at) && !text[..at].ends_with(['.', '-', '_', '}']));
                assert!(!hit, "{path} names a path of one machine: {word}");
            }
            let lines = text.lines().count();
            assert!(!path.ends_with(".rs") || lines <= 1000, "{path} has {lines} lines; split it");
        }
    }
}
