//! The `bwrap` runtime: one pod out of namespaces, bubblewrap, seccomp and cgroups.
//!
//! Order of things (the supervisor drives it): [`init`] makes the network namespace with `lo` and `tun0` only, hands TUN,
//! store listener and [`door`] over by SCM_RIGHTS, waits, and becomes bubblewrap with the arguments of [`bwrap`] and the
//! program of [`seccomp`]; [`cgroup`] holds it before it runs. The tenant sits in bubblewrap's own user namespace and so
//! has no power over the network namespace, which an outer one (or the host's, when the worker is root) owns.
//!
//! Needs unprivileged user namespaces, bubblewrap ≥ 0.8 and a TUN device. Images and GPUs are other runtimes' business.

pub mod bwrap;
pub mod cgroup;
pub mod disk;
pub mod door;
pub mod init;
pub mod netns;
pub mod pass;
pub mod procs;
pub mod seccomp;
pub mod uid;

/// TCP port on 127.0.0.1 inside the pod where the object store answers.
pub const STORE_PORT: u16 = 7070;
