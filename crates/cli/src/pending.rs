//! What was signed and is on its way: what makes a second run of the same command the same job, or the same transaction.
//!
//! Before anything is sent, everything that was signed is written to `pending/<fingerprint>.json` beside the profile. The
//! fingerprint is that of what was asked (operator, wallet, plan, code). A run that finds such a file sends the very same
//! bytes again under the same idempotency key. The file goes away when the operator has answered.

use std::marker::PhantomData;
use std::path::PathBuf;

use atoll_domain::job::{Bundle, SignedSpec};
use atoll_domain::key::{Address, Digest, PublicKey, Signature};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::exit::Failure;
use crate::extend::PendingExtension;
use crate::manifest::JobPlan;
use crate::market::act::Kept;
use crate::profile::{Home, Profile, write_private};

/// A submission, signed and not yet answered.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pending {
    /// The same for every try.
    pub idempotency_key: String,
    /// The order.
    pub order: Address,
    /// The specification's exact text.
    pub spec: String,
    /// The renter's, over its root.
    pub spec_signature: Signature,
    /// The signed `post_order` transaction, in hexadecimal.
    pub transaction: String,
}

/// Where one of them is kept.
#[derive(Debug)]
pub struct Slot<T>(PathBuf, PhantomData<T>);

impl Pending {
    /// The specification as it travels.
    #[must_use]
    pub fn signed_spec(&self) -> SignedSpec {
        SignedSpec { bytes: self.spec.clone().into_bytes(), signature: self.spec_signature }
    }

    /// The transaction's bytes.
    ///
    /// # Errors
    /// [`Failure`] when the file was damaged.
    pub fn transaction_bytes(&self) -> Result<Vec<u8>, Failure> {
        hex::decode(&self.transaction)
            .map_err(|_| Failure::usage("the kept submission is damaged: its transaction is not hexadecimal"))
    }
}

impl Slot<Pending> {
    /// The place for what `plan` asks of one operator with one wallet and one bundle.
    #[must_use]
    pub fn of(home: &Home, profile: &Profile, renter: PublicKey, plan: &JobPlan, bundle: &Bundle) -> Self {
        let asked = format!("{}\n{}\n{renter}\n{plan:?}\n{}", profile.server, profile.network_root, bundle.sha256);
        Self::at(home, &asked)
    }
}

impl Slot<PendingExtension> {
    /// The place for what lengthens an order: one at a time, whichever operator takes it.
    #[must_use]
    pub fn of_extension(home: &Home, profile: &Profile, renter: PublicKey, order: &Address) -> Self {
        Self::at(home, &format!("extend\n{}\n{renter}\n{order}", profile.network_root))
    }
}

impl Slot<Kept> {
    /// The place for one command's transaction: what is asked of a network with a wallet.
    #[must_use]
    pub fn of_act(home: &Home, profile: &Profile, signer: PublicKey, asked: &str) -> Self {
        Self::at(home, &format!("act\n{}\n{signer}\n{asked}", profile.network_root))
    }
}

impl<T: Serialize + DeserializeOwned> Slot<T> {
    fn at(home: &Home, asked: &str) -> Self {
        Self(home.folder().join("pending").join(format!("{}.json", Digest::of(asked.as_bytes()))), PhantomData)
    }

    /// What an earlier run left.
    ///
    /// # Errors
    /// [`Failure`] when the file is there and cannot be read.
    pub fn load(&self) -> Result<Option<T>, Failure> {
        let shown = self.0.display();
        match std::fs::read(&self.0) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| {
                Failure::usage(format!(
                    "what an earlier run kept in {shown} is damaged ({error}); look with `atoll job list` whether it was accepted, then remove the file"
                ))
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Failure::usage(format!("cannot read {shown}: {error}"))),
        }
    }

    /// Keeps it before it is sent.
    ///
    /// # Errors
    /// [`Failure`] when it cannot be written; then nothing may be sent.
    pub fn keep(&self, pending: &T) -> Result<(), Failure> {
        let folder = self.0.parent().expect("the slot lies in the pending folder");
        Home::at(folder).create()?;
        let bytes = serde_json::to_vec(pending).map_err(|error| Failure::usage(error.to_string()))?;
        write_private(&self.0, &bytes)
    }

    /// Forgets it: the operator has answered.
    ///
    /// # Errors
    /// [`Failure`] when the file cannot be removed; a later run would send it again.
    pub fn forget(&self) -> Result<(), Failure> {
        match std::fs::remove_file(&self.0) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => {
                Err(Failure::usage(format!("cannot remove {}: {error}; remove it by hand", self.0.display())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Overrides, plan};

    #[test]
    fn the_same_question_finds_what_an_earlier_run_left() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path());
        let profile = Profile {
            server: "https://x".into(),
            ca: "c".into(),
            api_key: "k".into(),
            wallet: "w".into(),
            rpc: "r".into(),
            network_root: Digest::of(b"n"),
        };
        let flags = Overrides {
            entry: Some("true".into()),
            model: Some("cpu".into()),
            pack: Some("p".into()),
            max_price: Some("1".into()),
            ..Overrides::default()
        };
        let asked = plan("[job]", &flags, None).unwrap();
        let bundle = Bundle { sha256: Digest::of(b"b"), bytes: 1 };
        let slot = |plan: &JobPlan| Slot::of(&home, &profile, PublicKey([1; 32]), plan, &bundle);
        let pending = Pending {
            idempotency_key: "k".into(),
            order: PublicKey([2; 32]),
            spec: "{}".into(),
            spec_signature: Signature([3; 64]),
            transaction: "00ff".into(),
        };
        assert_eq!(slot(&asked).load().unwrap(), None);
        slot(&asked).keep(&pending).unwrap();
        assert_eq!(slot(&asked).load().unwrap(), Some(pending.clone()));
        assert_eq!(pending.transaction_bytes().unwrap(), [0, 255]);
        assert_eq!(slot(&JobPlan { devices: 2, ..asked.clone() }).load().unwrap(), None);
        slot(&asked).forget().unwrap();
        slot(&asked).forget().unwrap();
        assert_eq!(slot(&asked).load().unwrap(), None);
    }
}
