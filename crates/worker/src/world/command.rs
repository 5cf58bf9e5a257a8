//! Commands as they come, turned into what they mean. Pure; nothing here is believed yet.

use std::collections::BTreeMap;

use atoll_api::link::{OpenStream, Roster, StartPod, StopPod, open_stream};
use atoll_domain::cluster::{OverlayIndex, PodRole};
use atoll_domain::id::{ClusterId, JobId, PodId, StreamId};
use atoll_domain::job::{JobSpec, SPEC_BYTES_MAX, SignedSpec};
use atoll_domain::key::{Address, Digest, PublicKey, Signature};

use super::refusal::Refusal;

/// The longest command id.
const COMMAND_BYTES_MAX: usize = 64;
/// The most members of one roster: what one line to the supervisor holds.
pub const MEMBERS_MAX: usize = 2_000;
/// The most environment variables of a command.
const ENV_MAX: usize = 64;
/// The longest value of one.
const ENV_BYTES_MAX: usize = 4096;

/// `StartPod`, read and its signature checked. Whether the chain agrees is still open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    pub command: String,
    pub pod: PodId,
    pub cluster: ClusterId,
    pub job: JobId,
    pub order: Address,
    pub lease: Address,
    pub mask: u16,
    pub fence: u64,
    pub root: Digest,
    pub spec: JobSpec,
    pub index: OverlayIndex,
    pub role: PodRole,
    pub env: BTreeMap<String, String>,
}

/// `Roster`, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members {
    pub command: String,
    pub pod: PodId,
    pub generation: u64,
    pub statements: Vec<Vec<u8>>,
    pub launch: bool,
    pub env: BTreeMap<String, String>,
}

/// Where a byte stream leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamTarget {
    /// A TCP port on the pod's overlay address.
    Port(u16),
    /// The pod's output from an offset.
    Output(u64),
}

/// `OpenStream`, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    pub stream: StreamId,
    pub pod: PodId,
    pub target: StreamTarget,
}

/// The command's id when it can be answered at all.
#[must_use]
pub fn answerable(command: &str) -> bool {
    !command.is_empty() && command.len() <= COMMAND_BYTES_MAX && command.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Reads `StartPod` and opens its specification: bounds, signature, meaning.
///
/// # Errors
/// [`Refusal`] of the first thing that is wrong.
pub fn start(from: StartPod) -> Result<Start, Refusal> {
    let malformed = |what: &str| Refusal::Malformed(what.to_owned());
    if from.spec.len() > SPEC_BYTES_MAX {
        return Err(Refusal::Spec(atoll_domain::job::SpecError::TooLarge { bytes: from.spec.len() }));
    }
    let signature = from.spec_signature.as_slice().try_into().map_err(|_| malformed("spec_signature is 64 bytes"))?;
    let signed = SignedSpec { bytes: from.spec, signature: Signature(signature) };
    let order = address(&from.order, "order")?;
    let parsed = Start {
        pod: id(&from.pod, "pod")?,
        cluster: id(&from.cluster, "cluster")?,
        job: id(&from.job, "job")?,
        order,
        lease: address(&from.lease, "lease")?,
        mask: u16::try_from(from.device_mask).ok().filter(|mask| *mask != 0).ok_or(malformed("device_mask"))?,
        fence: from.fence,
        index: u16::try_from(from.overlay_index)
            .ok()
            .and_then(OverlayIndex::new)
            .ok_or_else(|| malformed("overlay_index"))?,
        role: match from.role.as_str() {
            "head" => PodRole::Head,
            "node" => PodRole::Node,
            _ => return Err(malformed("role is head or node")),
        },
        env: environment(from.env)?,
        root: signed.root(),
        spec: signed.open()?,
        command: from.command,
    };
    if parsed.spec.order != order {
        return Err(Refusal::SpecOtherOrder { signed: parsed.spec.order, named: order });
    }
    Ok(parsed)
}

/// Reads `Roster`.
///
/// # Errors
/// [`Refusal`] of the first thing that is wrong.
pub fn roster(from: Roster) -> Result<Members, Refusal> {
    let sized = from.statements.iter().all(|statement| statement.len() == atoll_overlay::statement::SIGNED_BYTES);
    if from.statements.len() > MEMBERS_MAX || !sized {
        return Err(Refusal::Malformed(format!("a roster has at most {MEMBERS_MAX} signed statements")));
    }
    Ok(Members {
        pod: id(&from.pod, "pod")?,
        generation: from.generation,
        statements: from.statements,
        launch: from.launch,
        env: environment(from.env)?,
        command: from.command,
    })
}

/// Reads `StopPod`: the pod and the reason, cut to something that can be logged.
///
/// # Errors
/// [`Refusal::Malformed`].
pub fn stop(from: &StopPod) -> Result<(PodId, String), Refusal> {
    Ok((id(&from.pod, "pod")?, from.reason.chars().filter(|letter| !letter.is_control()).take(200).collect()))
}

/// Reads `OpenStream`.
///
/// # Errors
/// [`Refusal::Malformed`].
pub fn stream(from: &OpenStream) -> Result<Stream, Refusal> {
    let target = match from.target {
        Some(open_stream::Target::Port(port)) => {
            let port = u16::try_from(port).ok().filter(|port| *port != 0);
            StreamTarget::Port(port.ok_or_else(|| Refusal::Malformed("port".into()))?)
        }
        Some(open_stream::Target::OutputFrom(offset)) => StreamTarget::Output(offset),
        None => return Err(Refusal::Malformed("target".into())),
    };
    Ok(Stream { stream: id(&from.stream, "stream")?, pod: id(&from.pod, "pod")?, target })
}

fn id<T: std::str::FromStr>(text: &str, field: &str) -> Result<T, Refusal> {
    text.parse().map_err(|_| Refusal::Malformed(format!("`{field}` is not an id of its kind")))
}

fn address(bytes: &[u8], field: &str) -> Result<Address, Refusal> {
    bytes.try_into().map(PublicKey).map_err(|_| Refusal::Malformed(format!("`{field}` is 32 bytes")))
}

/// What the control plane may set: Atoll's own and Ray's variables, nothing that steers a loader or an interpreter.
fn environment(env: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Refusal> {
    if env.len() > ENV_MAX {
        return Err(Refusal::Environment(format!("{} variables", env.len())));
    }
    for (name, value) in &env {
        let letters = name.len() <= 64 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let ours = name.starts_with("ATOLL_") || name.starts_with("RAY_");
        if !letters || !ours || value.len() > ENV_BYTES_MAX || value.contains('\0') {
            return Err(Refusal::Environment(name.chars().take(64).collect()));
        }
    }
    Ok(env)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_atolls_and_rays_names_pass() {
        let one = |name: &str, value: &str| environment(BTreeMap::from([(name.to_owned(), value.to_owned())]));
        assert!(one("ATOLL_TOKEN", "x").is_ok());
        assert!(one("RAY_health_check_period_ms", "500").is_ok());
        for bad in ["LD_PRELOAD", "PYTHONPATH", "PATH", "", "ATOLL_A=B", "atoll_x"] {
            assert!(matches!(one(bad, "x"), Err(Refusal::Environment(_))), "{bad}");
        }
        assert!(one("ATOLL_X", &"x".repeat(ENV_BYTES_MAX + 1)).is_err());
        assert!(one("ATOLL_X", "a\0b").is_err());
    }

    #[test]
    fn streams_lead_to_a_port_or_to_output() {
        let of = |target| OpenStream {
            stream: StreamId::from_random([1; 16]).to_string(),
            pod: PodId::from_random([2; 16]).to_string(),
            target,
        };
        assert_eq!(stream(&of(Some(open_stream::Target::Port(8265)))).unwrap().target, StreamTarget::Port(8265));
        for bad in [None, Some(open_stream::Target::Port(0)), Some(open_stream::Target::Port(70_000))] {
            assert!(stream(&of(bad)).is_err());
        }
    }

    #[test]
    fn command_ids_are_short_and_printable() {
        assert!(answerable("cmd_1"));
        assert!(!answerable("") && !answerable("a b") && !answerable(&"a".repeat(65)));
    }
}
