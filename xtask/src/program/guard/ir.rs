//! The guard's half over the linked module's text (LLVM IR after the linker's optimiser, before code generation).

use super::{SYSCALLS, syscall_number};
use anyhow::{Result, bail};

/// What has neither an instruction nor a library function on this target. Code generation refuses most of it too; the
/// guard names it before.
const UNLINKABLE: [&str; 11] = [
    "llvm.umul.with.overflow",
    "llvm.smul.with.overflow",
    " mul i128",
    " udiv i128",
    " urem i128",
    " sdiv ",
    " srem ",
    " fadd ",
    " fmul ",
    " fdiv ",
    " double ",
];

/// Looks through a module's text.
///
/// # Errors
/// Names the first trap found.
pub(crate) fn check(module: &str) -> Result<()> {
    if !module.contains("target triple = \"bpfel\"") {
        bail!("not a module of the bpfel target");
    }
    for line in module.lines() {
        declaration(line)?;
        constant(line)?;
        call(line)?;
        if let Some(found) = UNLINKABLE.iter().find(|pattern| line.contains(*pattern)) {
            bail!("`{}` does not link on SBF; use atoll_interface::arithmetic: {}", found.trim(), cut(line));
        }
    }
    Ok(())
}

/// Trap A: any function declared here is either LLVM's own or one that the linker cut off.
fn declaration(line: &str) -> Result<()> {
    let Some(rest) = line.strip_prefix("declare ") else { return Ok(()) };
    let name = rest.split_once('@').map_or(rest, |(_, name)| name.split('(').next().unwrap_or(name));
    if name.starts_with("llvm.") {
        return Ok(());
    }
    bail!(
        "the module declares `{name}`: a syscall that is not static loses its arguments. Enable \
         `unstable-static-syscalls` of every solana-define-syscall in the lock: {}",
        cut(line)
    )
}

/// Trap C: a constant or global with the address of another inside.
fn constant(line: &str) -> Result<()> {
    let is_global = line.starts_with('@') && (line.contains(" constant ") || line.contains(" global "));
    if is_global && line.contains("ptr @") {
        bail!("a constant holds a pointer, which is never relocated; build the table at run time: {}", cut(line));
    }
    Ok(())
}

/// Static syscalls are calls to their number; each must be one whose arguments are proven to arrive.
fn call(line: &str) -> Result<()> {
    let mut rest = line;
    while let Some((_, after)) = rest.split_once("inttoptr (i64 ") {
        rest = after;
        let Some((number, tail)) = after.split_once(" to ptr)") else { continue };
        if tail.starts_with('(') && !SYSCALLS.iter().any(|name| syscall_number(name).to_string() == number) {
            bail!(
                "a call to syscall number {number}, which has no operation in the conformance program: {}",
                cut(line)
            );
        }
    }
    Ok(())
}

fn cut(line: &str) -> String {
    line.chars().take(160).collect()
}
