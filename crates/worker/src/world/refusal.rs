//! Why a command is not carried out. Each has a stable code and says what would cure it.

use atoll_domain::id::PodId;
use atoll_domain::job::SpecError;
use atoll_domain::key::{Address, Digest};

/// A refusal by rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the command cannot be read: {0}")]
    Malformed(String),
    #[error("the environment has `{0}`: the control plane may set ATOLL_ and RAY_ names only, at most 64 of 4 KiB")]
    Environment(String),
    #[error("{0}")]
    Spec(#[from] SpecError),
    #[error("the specification is signed for order {signed}, and the command names {named}")]
    SpecOtherOrder { signed: Address, named: Address },
    #[error("the specification is signed for another network ({0}); this worker serves the one it joined")]
    SpecOtherNetwork(Digest),
    #[error(
        "pack {name} with digest {sha256} is not on this worker: build it, and add its folder with `atoll worker join --pack DIR`"
    )]
    PackMissing { name: String, sha256: Digest },
    #[error("the chain cannot be read ({0}): send the command again later")]
    ChainUnreachable(String),
    #[error("order {0} is not on the chain")]
    OrderUnknown(Address),
    #[error("the order on the chain was posted for another specification: its root is {ordered}, this one's {given}")]
    SpecNotOrdered { ordered: Digest, given: Digest },
    #[error("the specification is not signed by the renter of its order")]
    OtherRenter,
    #[error("order {order} has no lease {lease}")]
    LeaseUnknown { order: Address, lease: Address },
    #[error("lease {0} does not hold this worker's slot with its device key")]
    LeaseNotHere(Address),
    #[error("lease {lease} holds the devices {leased:#06b}, the command says {named:#06b}")]
    OtherMask { lease: Address, leased: u16, named: u16 },
    #[error("lease {0} is not active yet")]
    LeaseNotActive(Address),
    #[error("lease {0} has ended or was released")]
    LeaseOver(Address),
    #[error("fence {fence} is not above {highest}, the highest of lease {lease}")]
    StaleFence { lease: Address, fence: u64, highest: u64 },
    #[error("this worker cannot write its records ({0}): make room on its disk")]
    RecordsUnwritable(String),
    #[error("this worker already handles {0} pods, its most")]
    TooManyPods(usize),
    #[error("pod {0} is not on this worker")]
    PodUnknown(PodId),
    #[error("pod {0} was started by another operator, which alone commands it")]
    OtherOperator(PodId),
    #[error("pod {0} is over")]
    PodOver(PodId),
    #[error("pod {0} is not prepared yet")]
    PodNotPrepared(PodId),
    #[error("not every member was admitted, and nothing was launched: {0}")]
    StatementRefused(String),
    #[error("the pod's supervisor failed: {0}")]
    Supervisor(String),
    #[error("the pod was stopped before it started")]
    Cancelled,
}

macro_rules! codes {
    ($($refusal:pat => $code:literal,)*) => {
        /// Every code; each has a page in `docs/errors/`.
        pub const CODES: &[&str] = &[$($code),*];

        /// The stable code.
        #[must_use]
        pub const fn code(&self) -> &'static str {
            match self {
                $($refusal => $code,)*
            }
        }
    };
}

impl Refusal {
    codes! {
        Self::Malformed(_) => "malformed_command",
        Self::Environment(_) => "env_refused",
        Self::Spec(_) => "spec_refused",
        Self::SpecOtherOrder { .. } => "spec_other_order",
        Self::SpecOtherNetwork(_) => "spec_other_network",
        Self::PackMissing { .. } => "pack_missing",
        Self::ChainUnreachable(_) => "chain_unreachable",
        Self::OrderUnknown(_) => "order_unknown",
        Self::SpecNotOrdered { .. } => "spec_not_ordered",
        Self::OtherRenter => "other_renter",
        Self::LeaseUnknown { .. } => "lease_unknown",
        Self::LeaseNotHere(_) => "lease_not_here",
        Self::OtherMask { .. } => "other_mask",
        Self::LeaseNotActive(_) => "lease_not_active",
        Self::LeaseOver(_) => "lease_over",
        Self::StaleFence { .. } => "stale_fence",
        Self::RecordsUnwritable(_) => "records_unwritable",
        Self::TooManyPods(_) => "too_many_pods",
        Self::PodUnknown(_) => "pod_unknown",
        Self::OtherOperator(_) => "other_operator",
        Self::PodOver(_) => "pod_over",
        Self::PodNotPrepared(_) => "pod_not_prepared",
        Self::StatementRefused(_) => "statement_refused",
        Self::Supervisor(_) => "supervisor_failed",
        Self::Cancelled => "cancelled",
    }

    /// Whether a moment may cure it: the chain does not show yet what the control plane has seen, or the disk is full.
    #[must_use]
    pub const fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::ChainUnreachable(_)
                | Self::OrderUnknown(_)
                | Self::LeaseUnknown { .. }
                | Self::LeaseNotActive(_)
                | Self::RecordsUnwritable(_)
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_code_has_its_page_and_every_page_its_code() {
        let repository = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
        let codes: BTreeSet<&str> = Refusal::CODES.iter().copied().collect();
        assert_eq!(codes.len(), Refusal::CODES.len(), "two refusals have one code");
        let page = |code: &str| format!("{repository}/docs/errors/{code}.md");
        for code in &codes {
            let text = std::fs::read_to_string(page(code)).unwrap_or_else(|error| panic!("{}: {error}", page(code)));
            for part in [&format!("# `{code}`"), "**What happened.**", "**Why.**", "**What to do.**"] {
                assert!(text.contains(part), "{code}.md lacks `{part}`");
            }
        }
        // The other codes are the control plane's, and one page is the market program's.
        let others = std::fs::read_to_string(format!("{repository}/crates/control/src/error.rs")).unwrap();
        for entry in std::fs::read_dir(format!("{repository}/docs/errors")).unwrap() {
            let path = entry.unwrap().path();
            let word = path.file_stem().unwrap().to_str().unwrap();
            assert!(
                word == "market" || codes.contains(word) || others.contains(&format!("\"{word}\",")),
                "nothing says `{word}` any more"
            );
        }
    }
}
