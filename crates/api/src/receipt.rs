//! Receipts: what ran, where, how long, what it cost, who says so, and what was checked.
//!
//! A receipt is `{"body": "<JSON text>", "signer": …, "signature": …}`. The operator signs the SHA-256 of the body's exact
//! bytes, so there is no canonical form to disagree about; a reader hashes first and parses afterwards. What the body
//! carries is enough to check every sum with no network, starting from a pinned network root. The check itself is the
//! client's (`atoll receipt verify`); writing a body is the control plane's.

use std::collections::BTreeMap;

use atoll_domain::id::{JobId, WorkerId};
use atoll_domain::job::{JobOutcome, JobState};
use atoll_domain::key::{Address, Digest, KeyError, PublicKey, Purpose, SecretKey, Signature};
use atoll_domain::lease::ReleaseReason;
use atoll_domain::money::{Atl, UsdMicrosPerHour};
use atoll_domain::time::UnixMs;
use serde::{Deserialize, Serialize};

/// The form of body that this build writes and reads.
pub const RECEIPT_VERSION: u16 = 1;
/// The longest receipt that is read, in bytes: 10,000 leases of 1.5 KiB.
pub const RECEIPT_BYTES_MAX: usize = 16 << 20;
/// What was checked, until something verifies work.
pub const CHECKED: &str = "time: metered; work: not checked";

/// A receipt as it travels and lies in a file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// A [`ReceiptBody`] as JSON text; these exact bytes are signed.
    pub body: String,
    /// The operator: one of the solver keys that the renter's order names.
    pub signer: PublicKey,
    /// Over the SHA-256 of `body`.
    pub signature: Signature,
}

/// Why a receipt cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// Too many bytes to look at.
    #[error("the receipt has {0} bytes; at most {RECEIPT_BYTES_MAX} are read")]
    TooLarge(usize),
    /// Not a receipt, or its body is not one of this version.
    #[error("not a receipt of version {RECEIPT_VERSION}: {0}")]
    Malformed(String),
    /// Changed after signing, or signed by another key.
    #[error("the receipt's signature does not fit its body: {0}")]
    BadSignature(#[from] KeyError),
}

impl Receipt {
    /// Signs a body.
    ///
    /// # Errors
    /// [`ReceiptError::Malformed`] when the body cannot be written as JSON.
    pub fn seal(body: &ReceiptBody, operator: &SecretKey) -> Result<Self, ReceiptError> {
        let body = serde_json::to_string(body).map_err(|error| malformed(&error))?;
        let signature = operator.sign(Purpose::Receipt, &Digest::of(body.as_bytes()).0);
        Ok(Self { body, signer: operator.public(), signature })
    }

    /// Reads a receipt's JSON.
    ///
    /// # Errors
    /// [`ReceiptError`] when it is too long or malformed.
    pub fn read(bytes: &[u8]) -> Result<Self, ReceiptError> {
        if bytes.len() > RECEIPT_BYTES_MAX {
            return Err(ReceiptError::TooLarge(bytes.len()));
        }
        serde_json::from_slice(bytes).map_err(|error| malformed(&error))
    }

    /// The body, once its signature fits. Nothing in it has been checked but who said it.
    ///
    /// # Errors
    /// [`ReceiptError`].
    pub fn open(&self) -> Result<ReceiptBody, ReceiptError> {
        if self.body.len() > RECEIPT_BYTES_MAX {
            return Err(ReceiptError::TooLarge(self.body.len()));
        }
        self.signer.verify(Purpose::Receipt, &Digest::of(self.body.as_bytes()).0, &self.signature)?;
        let body: ReceiptBody = serde_json::from_str(&self.body).map_err(|error| malformed(&error))?;
        if body.version != RECEIPT_VERSION {
            return Err(ReceiptError::Malformed(format!("its body has version {}", body.version)));
        }
        Ok(body)
    }
}

/// A parser's first words: it repeats names that it does not know, however long they are.
fn malformed(error: &serde_json::Error) -> ReceiptError {
    ReceiptError::Malformed(error.to_string().chars().take(300).collect())
}

macro_rules! wire {
    ($($item:item)*) => {$(
        #[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        $item
    )*};
}

wire! {
    /// Everything a receipt says.
    pub struct ReceiptBody {
        /// [`RECEIPT_VERSION`].
        pub version: u16,
        /// Which network, and who attests on it.
        pub network: NetworkRecord,
        /// What the renter ordered.
        pub order: OrderRecord,
        /// What the renter agreed to run.
        pub spec: SpecRecord,
        /// Every lease the order ever had, by `n`.
        pub leases: Vec<LeaseRecord>,
        /// The epochs that the leaves refer to.
        pub epochs: Vec<EpochRecord>,
        /// The sums.
        pub money: MoneyRecord,
        /// What the operator says of the job. Reported, not proven.
        pub result: ResultRecord,
        /// Names of transactions on the chain, by what they did. Given, not checked offline.
        pub transactions: Vec<TransactionRecord>,
    }

    /// A network, as its root commits to it.
    pub struct NetworkRecord {
        /// The market program.
        pub program_id: PublicKey,
        /// The chain's genesis hash, base58.
        pub genesis_hash: PublicKey,
        /// Attestor set 0.
        pub attestors: AttestorSet,
        /// Signed changes of the set since; none exist in version 1.
        pub attestor_changes: Vec<serde_json::Value>,
    }

    /// Who attests, and how many votes make a root final.
    pub struct AttestorSet {
        /// Votes needed.
        pub threshold: u16,
        /// In the order of the chain's `Config` account.
        pub seats: Vec<SeatRecord>,
    }

    /// One seat of the attestor set.
    pub struct SeatRecord {
        /// The wallet that staked for it.
        pub owner: PublicKey,
        /// The key that votes.
        pub key: PublicKey,
    }

    /// The order: the renter's signed transaction, and what the chain added to it.
    pub struct OrderRecord {
        /// Its account.
        pub address: Address,
        /// The signed `post_order` transaction, base64.
        pub transaction: String,
        /// The signed `extend_order` transactions that lengthened it, base64.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pub extensions: Vec<String>,
        /// What further transactions of the renter's added, as the chain says, which are not shown. Given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub unshown: Option<UnshownRecord>,
        /// Micro-USD per ATL that the chain used when it was posted. Given.
        pub feed_uusd_per_atl: u64,
        /// Fee on each side, in basis points. Given.
        pub fee_bps: u16,
        /// When it was posted, Unix seconds of the chain. Given.
        pub posted_at_s: i64,
        /// When it became active; none when it never did. Given.
        pub active_at_s: Option<i64>,
    }

    /// What lengthened an order in transactions that its operator cannot show: a node of the chain forgets what is old,
    /// and what another program called stands in no transaction of Atoll's form.
    #[derive(Copy)]
    pub struct UnshownRecord {
        /// Seconds that they added.
        pub seconds: u32,
        /// What they added to the escrow.
        pub escrow: Atl,
    }

    /// The job specification with the renter's signature.
    pub struct SpecRecord {
        /// Its exact bytes, base64.
        pub bytes: String,
        /// The renter's, over its root.
        pub signature: Signature,
    }

    /// One lease: devices of one supplier's page, locked for this order.
    pub struct LeaseRecord {
        /// Its account.
        pub address: Address,
        /// Its number in the order; a replacement has the next one.
        pub n: u16,
        /// Whether it replaced a lost one.
        pub refill: bool,
        /// The supplier's wallet.
        pub supplier: PublicKey,
        /// The supplier's fleet page.
        pub page: Address,
        /// Number of that page among the supplier's.
        pub page_no: u16,
        /// Slots of the page, ascending.
        pub slots: Vec<u16>,
        /// The workers in these slots. Given.
        pub workers: Vec<WorkerId>,
        /// Devices of each slot, one bit each.
        pub mask: u16,
        /// The slots' ask when filled.
        pub ask: UsdMicrosPerHour,
        /// Base units per device-second.
        pub rate: u64,
        /// Start of pay, Unix seconds.
        pub start_s: i64,
        /// End, Unix seconds.
        pub end_s: i64,
        /// When its devices were released, Unix seconds; none when it ran to its end.
        pub released_at_s: Option<i64>,
        /// Why they were.
        pub reason: Option<ReleaseReason>,
        /// Whether the chain closed it without a final leaf, because nobody attested one in time: what it is paid is what was
        /// booked before. Given.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        pub unfinished: bool,
        /// What the attestors say it served; none when it is paid nothing.
        pub attested: Option<AttestedLeaf>,
    }

    /// The leaf that a lease was paid by, its last, and its way to a root.
    pub struct AttestedLeaf {
        /// Device-seconds served since the lease's start.
        pub device_seconds: u64,
        /// Up to when it was observed, Unix seconds.
        pub until_s: i64,
        /// The leaf's flags: 1 final, 2 the supplier is blamed for a loss.
        pub flags: u8,
        /// Commits seconds and verdict of every slot.
        pub slots_root: Digest,
        /// The epoch whose root it stands under.
        pub epoch: u64,
        /// Its place among the epoch's leaves.
        pub leaf_index: u32,
        /// Sibling hashes from the leaf to the root.
        pub path: Vec<Digest>,
    }

    /// One epoch's root and the votes for it.
    pub struct EpochRecord {
        /// Its number.
        pub index: u64,
        /// Root over its leaves.
        pub root: Digest,
        /// Who signed it.
        pub votes: Vec<VoteRecord>,
    }

    /// One attestor's vote.
    pub struct VoteRecord {
        /// The attestor's key.
        pub key: PublicKey,
        /// Over the off-chain vote message: network root, epoch, root.
        pub signature: Signature,
    }

    /// The sums, in base units. `escrow = paid + refunded + fees`, `fees = burned + treasury`.
    pub struct MoneyRecord {
        /// Escrowed when posted, and by extensions.
        pub escrow: Atl,
        /// Received by suppliers.
        pub paid: Atl,
        /// Returned to the renter.
        pub refunded: Atl,
        /// Both sides' fees.
        pub fees: Atl,
        /// Of the fees, burned.
        pub burned: Atl,
        /// Of the fees, to the network's treasury.
        pub treasury: Atl,
    }

    /// The job's outcome in the operator's words.
    pub struct ResultRecord {
        /// The job.
        pub job: JobId,
        /// How it ended.
        pub state: JobState,
        /// How the command ended.
        pub outcome: Option<JobOutcome>,
        /// Why, in words.
        pub reason: String,
        /// Times the command was started.
        pub attempts: u32,
        /// Last reported training step.
        pub step: Option<u64>,
        /// Last reported test accuracy, in millionths.
        pub accuracy_ppm: Option<u32>,
        /// Step that the last attempt resumed from, as the resumed process said.
        pub resumed_from_step: Option<u64>,
        /// When the job was accepted.
        pub created: UnixMs,
        /// When it ended.
        pub ended: UnixMs,
        /// What was checked: [`CHECKED`].
        pub checked: String,
        /// Further named values.
        #[serde(default)]
        pub fields: BTreeMap<String, String>,
    }

    /// A transaction on the chain.
    pub struct TransactionRecord {
        /// What it did, for example `post_order`.
        pub what: String,
        /// Its first signature.
        pub signature: Signature,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_or_foreign_receipt_does_not_open() {
        let key = SecretKey::from_seed(&[1; 32]);
        let body = "{}".to_owned();
        let signature = key.sign(Purpose::Receipt, &Digest::of(body.as_bytes()).0);
        let receipt = Receipt { body, signer: key.public(), signature };
        assert!(matches!(receipt.open(), Err(ReceiptError::Malformed(_))), "signed, but no body");
        let changed = Receipt { body: "{ }".into(), ..receipt.clone() };
        assert!(matches!(changed.open(), Err(ReceiptError::BadSignature(_))));
        let foreign = Receipt { signer: SecretKey::from_seed(&[2; 32]).public(), ..receipt };
        assert!(matches!(foreign.open(), Err(ReceiptError::BadSignature(_))));
        assert!(matches!(Receipt::read(b"{\"body\":1}"), Err(ReceiptError::Malformed(_))));
    }
}
