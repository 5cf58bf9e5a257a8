//! The system calls that a tenant may not make. Pure: a list in, a BPF program out.
//!
//! A deny list: Ray, torch and gloo run under it, and what namespaces and the missing capabilities already refuse is
//! refused here again, before the kernel's code for it runs. Refused calls answer EPERM, `clone3` ENOSYS (its flags lie
//! in memory that BPF cannot read; the C library then falls back to `clone`, whose flags it can).

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition, SeccompFilter,
    SeccompRule, sock_filter,
};

/// Always refused.
const DENIED: &[i64] = &[
    // Keys, programs and probes in the kernel.
    libc::SYS_add_key,
    libc::SYS_keyctl,
    libc::SYS_request_key,
    libc::SYS_bpf,
    libc::SYS_userfaultfd,
    libc::SYS_perf_event_open,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_fanotify_init,
    libc::SYS_lookup_dcookie,
    // Mounts and namespaces.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_open_by_handle_at,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // The machine.
    libc::SYS_kexec_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    libc::SYS_personality,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_kexec_file_load,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
];

/// Namespace flags of `clone`, none of which a tenant may set.
const CLONE_FLAGS: [i32; 7] = [
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
];

/// Socket families that stay inside the pod's network namespace. AF_VSOCK, for one, would reach the hypervisor.
const FAMILIES: [i32; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// Terminal requests that put words into somebody else's mouth.
const TERMINAL: [u64; 2] = [libc::TIOCSTI, 0x541C /* TIOCLINUX */];

/// System calls of the x32 ABI have this bit; the filter's architecture check does not tell them apart.
#[cfg(target_arch = "x86_64")]
const X32_BIT: u32 = 0x4000_0000;

/// The program in the kernel's form: 8 bytes an instruction, as `bwrap --seccomp` reads it.
///
/// # Errors
/// seccompiler refused the rules (a programming error that the tests would show), or does not know this architecture.
pub fn program() -> Result<Vec<u8>, seccompiler::Error> {
    let mut program = before();
    program.extend(denied()?);
    Ok(program.iter().flat_map(bytes).collect())
}

fn denied() -> Result<BpfProgram, seccompiler::Error> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = DENIED.iter().map(|number| (*number, vec![])).collect();
    let clone = CLONE_FLAGS.map(|flag| u64::from(flag.unsigned_abs()));
    let clone = clone.iter().map(|flag| rule(&[(0, Len::Qword, Op::MaskedEq(*flag), *flag)]));
    rules.insert(libc::SYS_clone, clone.collect::<Result<_, _>>()?);
    let family = FAMILIES.map(|family| (0, Len::Dword, Op::Ne, u64::from(family.unsigned_abs())));
    rules.insert(libc::SYS_socket, vec![rule(&family)?]);
    let terminal = TERMINAL.iter().map(|request| rule(&[(1, Len::Dword, Op::Eq, *request)]));
    rules.insert(libc::SYS_ioctl, terminal.collect::<Result<_, _>>()?);
    let refuse = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, std::env::consts::ARCH.try_into()?)?;
    Ok(filter.try_into()?)
}

/// All conditions together: argument, width, comparison, value.
fn rule(conditions: &[(u8, Len, Op, u64)]) -> Result<SeccompRule, seccompiler::Error> {
    let conditions =
        conditions.iter().map(|(at, len, op, value)| SeccompCondition::new(*at, len.clone(), op.clone(), *value));
    Ok(SeccompRule::new(conditions.collect::<Result<_, _>>()?)?)
}

/// What seccompiler cannot say, before its own program: another errno for `clone3`, a range for x32.
fn before() -> BpfProgram {
    const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    const ERRNO: u32 = libc::SECCOMP_RET_ERRNO;
    let step = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    let clone3 = u32::try_from(libc::SYS_clone3).expect("system call numbers are small");
    let mut steps = vec![
        step(LOAD, 0, 0, 0), // seccomp_data.nr
        step(JUMP_EQUAL, 0, 1, clone3),
        step(RETURN, 0, 0, ERRNO | libc::ENOSYS.unsigned_abs()),
    ];
    #[cfg(target_arch = "x86_64")]
    {
        const JUMP_AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
        steps.push(step(JUMP_AT_LEAST, 0, 1, X32_BIT));
        steps.push(step(RETURN, 0, 0, ERRNO | libc::EPERM.unsigned_abs()));
    }
    steps
}

fn bytes(step: &sock_filter) -> [u8; 8] {
    let [c0, c1] = step.code.to_ne_bytes();
    let [k0, k1, k2, k3] = step.k.to_ne_bytes();
    [c0, c1, step.jt, step.jf, k0, k1, k2, k3]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_whole_instructions_within_the_kernels_limit() {
        let program = program().unwrap();
        assert_eq!(program.len() % 8, 0);
        assert!(program.len() / 8 > DENIED.len() && program.len() / 8 < 4096);
    }

    #[test]
    fn at_least_the_thirty_of_the_recipe_are_refused_once_each() {
        let mut numbers = DENIED.to_vec();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), DENIED.len());
        assert!(DENIED.len() >= 30);
    }
}
