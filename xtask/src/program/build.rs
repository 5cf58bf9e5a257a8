//! One program, from sources to guarded bytes.

use super::{guard, toolchain::Toolchain};
use anyhow::{Context, Result, bail};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The target triple: upstream's BPF, which the SBF linker turns into what Solana loads.
const TARGET: &str = "bpfel-unknown-none";

/// A program of this repository.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Program {
    /// The market.
    Market,
    /// One operation a syscall; its bytes are a fixture of the program's tests.
    Conformance,
}

impl Program {
    pub(crate) const ALL: [Self; 2] = [Self::Market, Self::Conformance];

    /// Everything that decides the bytes of the programs.
    pub(crate) const SOURCES: [&str; 8] = [
        "program/interface/Cargo.toml",
        "program/interface/src",
        "program/market/Cargo.toml",
        "program/market/Cargo.lock",
        "program/market/src",
        "program/market/conformance/Cargo.toml",
        "program/market/conformance/src",
        "xtask/src/program/build.rs",
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Market => "market",
            Self::Conformance => "conformance",
        }
    }

    /// The committed file's name.
    pub(crate) const fn file(self) -> &'static str {
        match self {
            Self::Market => "market.so",
            Self::Conformance => "conformance.so",
        }
    }

    pub(crate) fn bytes_path(self, repository: &Path) -> PathBuf {
        repository.join("program").join(self.file())
    }

    pub(crate) fn stamp_path(self, repository: &Path) -> PathBuf {
        repository.join("program").join(format!("{}.sha256", self.file()))
    }

    /// Compiles, links and guards the program; returns its bytes.
    ///
    /// # Errors
    /// When it does not compile or link, or when the guard finds a trap in what was linked.
    pub(crate) fn build(self, repository: &Path, toolchain: &Toolchain) -> Result<Vec<u8>> {
        let target = repository.join("target/sbf");
        // The linker writes its module only when it runs, so each build links anew.
        let out = target.join(TARGET).join("release");
        let (dump, linked) = (target.join("dump").join(self.name()), out.join(format!("libatoll_{}.so", self.name())));
        remove(&dump)?;
        remove(&linked)?;
        remove_prefixed(&out.join(".fingerprint"), &format!("atoll-{}-", self.name()))?;
        fs::create_dir_all(&dump)?;

        let mut cargo = Command::new(toolchain.sysroot.join("bin/cargo"));
        cargo
            .current_dir(repository.join("program/market"))
            .args(["build", "--locked", "-Zbuild-std=core,alloc", "--release", "--target", TARGET])
            .args(["--package", &format!("atoll-{}", self.name()), "--target-dir"])
            .arg(&target)
            .env("RUSTC", toolchain.sysroot.join("bin/rustc"))
            // The pinned stable compiler, with the one unstable flag that builds core for this target.
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_ENCODED_RUSTFLAGS", flags(repository, toolchain, &dump)?.join("\u{1f}"))
            // The linker loads the LLVM that rustc ships.
            .env("LD_LIBRARY_PATH", toolchain.sysroot.join("lib"));
        for name in ["RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "CARGO_BUILD_TARGET", "RUSTUP_TOOLCHAIN"]
        {
            cargo.env_remove(name);
        }
        let done = cargo.output().context("cargo did not start")?;
        if !done.status.success() {
            let said = String::from_utf8_lossy(&done.stderr);
            bail!("{} does not build.\n{}\n{said}", self.file(), explain(&said));
        }
        let module = dump.join("post-opt.ll");
        let text = fs::read_to_string(&module)
            .with_context(|| format!("the linker left no {}; the guard cannot look", module.display()))?;
        guard::ir::check(&text).with_context(|| format!("{}: the guard refuses the linked module", self.file()))?;
        let bytes = fs::read(&linked).with_context(|| linked.display().to_string())?;
        guard::elf::check(&bytes).with_context(|| format!("{}: the guard refuses the bytes", self.file()))?;
        Ok(bytes)
    }
}

fn flags(repository: &Path, toolchain: &Toolchain, dump: &Path) -> Result<Vec<String>> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::home_dir().map(|home| home.join(".cargo"))).context("no home folder")?;
    let codegen = [
        format!("linker={}", toolchain.linker.display()),
        "panic=abort".to_owned(),
        "relocation-model=static".to_owned(),
        "passes=lower-atomic".to_owned(),
        "link-arg=--llvm-args=-bpf-stack-size=4096,-profile-guided-section-prefix=false".to_owned(),
        format!("link-arg=--dump-module={}", dump.display()),
    ];
    let mut flags: Vec<String> = codegen.into_iter().flat_map(|option| ["-C".to_owned(), option]).collect();
    // The three places whose paths would leak into the bytes.
    let library = toolchain.sysroot.join("lib/rustlib/src/rust");
    for (from, to) in [(repository, "/p"), (home.as_path(), "/c"), (library.as_path(), "/r")] {
        flags.push(format!("--remap-path-prefix={}={to}", from.display()));
    }
    Ok(flags)
}

/// Says in words what the linker's loud refusals mean.
fn explain(said: &str) -> &'static str {
    if said.contains("too many arguments") || said.contains("stack arguments are not supported") {
        "A function passes more than five words (a slice is two, a large result one): gather them in a struct."
    } else if said.contains("__multi3") || said.contains("only small returns supported") {
        "A checked or 128-bit multiplication does not link here: use atoll_interface::arithmetic."
    } else if said.contains("Looks like the BPF stack limit is exceeded") || said.contains("stack frame") {
        "A function's frame is above 4 KiB: split it, or borrow instead of copying."
    } else {
        "docs/decisions/0002-program-toolchain.md lists what this target cannot do."
    }
}

fn remove(path: &Path) -> Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| path.display().to_string())
        }
        _ => Ok(()),
    }
}

fn remove_prefixed(folder: &Path, prefix: &str) -> Result<()> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::explain;

    #[test]
    fn loud_refusals_are_explained() {
        let multiply = "ERROR llvm: <unknown>:0:0: in function index void (ptr, ptr): A call to built-in function '__multi3' is not supported.";
        let arguments = "ERROR llvm: <unknown>:0:0: in function find void (ptr, ptr, ptr, i64, ptr, i64): stack arguments are not supported";
        assert!(explain(multiply).contains("arithmetic"));
        assert!(explain(arguments).contains("five words"));
        assert!(explain("anything else").contains("docs/decisions"));
    }
}
