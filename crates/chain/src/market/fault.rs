//! The instructions that bring faults to the chain, and the ed25519 checks that stand beside them. Pure, as
//! [`super::instruction`].

use atoll_interface::Error;
use atoll_interface::capacity::Statement;
use atoll_interface::instruction as interface;
use atoll_interface::layout::FraudCase;
use atoll_interface::signature::{ED25519_ID, INSTRUCTIONS_ID};

use super::instruction::{build, build_fixed};
use super::{address, sha256};
use crate::address::{Address, Signature};
use crate::transaction::Instruction;

/// Where signature, key and message stand in the data of a check: behind a count, padding and seven offsets.
const CHECK_HEAD: u16 = 2 + 7 * 2;
/// "In this very instruction", where an offset names one.
const SAME: u16 = u16::MAX;

/// Has the runtime verify a signature; the market program reads from beside it which key signed what. Nobody signs.
///
/// # Errors
/// [`Error::InstructionMalformed`] for a message that fits in no transaction.
pub fn ed25519_check(key: Address, signature: &Signature, message: &[u8]) -> Result<Instruction, Error> {
    let len = u16::try_from(message.len()).map_err(|_| Error::InstructionMalformed)?;
    let (key_at, message_at) = (CHECK_HEAD + 64, CHECK_HEAD + 64 + 32);
    let mut data = vec![1, 0];
    for number in [CHECK_HEAD, SAME, key_at, SAME, message_at, len, SAME] {
        data.extend_from_slice(&number.to_le_bytes());
    }
    data.extend_from_slice(&signature.0);
    data.extend_from_slice(&key.0);
    data.extend_from_slice(message);
    Ok(Instruction { program: Address(ED25519_ID), accounts: Vec::new(), data })
}

/// Proves that an attestor's key signed two roots of one epoch; `first` and `second` say which instructions of the
/// transaction check the votes, `bounty` is a token account of the prover. Signs: `prover`.
#[must_use]
pub fn prove_equivocation(
    prover: Address,
    key: Address,
    mint: Address,
    bounty: Address,
    data: &interface::ProveEquivocation,
) -> Instruction {
    let attestor = address::attestor(&key);
    let accounts = interface::ProveEquivocationAccounts {
        prover: prover.0,
        attestor: attestor.0,
        vault: address::attestor_vault(&attestor).0,
        mint: mint.0,
        bounty: bounty.0,
        config: address::config().0,
        rules: address::rules().0,
        instructions: INSTRUCTIONS_ID,
    };
    build_fixed(accounts.metas(), data.encode())
}

/// Where a case on a device's statement is.
#[must_use]
pub fn case_of(statement: &Statement) -> Address {
    address::fraud(&Address(statement.device), &crate::Hash(sha256(&[&statement.message()])))
}

/// What holds a device that is accused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The lease.
    pub lease: Address,
    /// Its order.
    pub order: Address,
}

/// Opens a case on what a device of `supplier` signed; `held` names what holds the device then, whose renter is paid first.
/// Instruction `data.check` of the transaction checks the device's signature. Signs: `opener`, who pays.
#[must_use]
pub fn open_fraud(
    opener: Address,
    supplier: Address,
    statement: &Statement,
    held: Option<Held>,
    data: &interface::OpenFraud,
) -> Instruction {
    let page = address::page(&supplier, data.page_no);
    let accounts = interface::OpenFraudAccounts {
        opener: opener.0,
        case: case_of(statement).0,
        device_key: address::device(&Address(statement.device)).0,
        page: page.0,
        first_page: address::page(&supplier, 0).0,
        lease: held.map_or(page, |held| held.lease).0,
        order: held.map_or(page, |held| held.order).0,
        config: address::config().0,
        rules: address::rules().0,
        instructions: INSTRUCTIONS_ID,
    };
    build_fixed(accounts.metas(), data.encode())
}

/// Another case of the same device, whose wrong elements count together with the first one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OtherCase {
    /// Its account.
    pub case: Address,
    /// Who opened it, and gets its rent when it is closed.
    pub opener: Address,
}

/// Shows one wrong element of a case. Nobody needs to sign.
///
/// # Errors
/// [`Error::InstructionMalformed`] when the path does not fit in a transaction.
pub fn add_fraud_element(
    case: Address,
    other: Option<OtherCase>,
    data: &interface::AddFraudElement<'_>,
) -> Result<Instruction, Error> {
    let other = other.unwrap_or(OtherCase { case, opener: case });
    let accounts = interface::AddFraudElementAccounts {
        case: case.0,
        other: other.case.0,
        other_opener: other.opener.0,
        rules: address::rules().0,
    };
    Ok(build(accounts.metas(), &data.encode()?))
}

/// Slashes for a proven case. `bounty` is a token account of its opener; `refund` one of the harmed renter, `None` when
/// nobody gets a refund. Nobody needs to sign.
#[must_use]
pub fn execute_slash(
    at: Address,
    case: &FraudCase,
    mint: Address,
    bounty: Address,
    refund: Option<Address>,
) -> Instruction {
    let first_page = Address(case.first_page);
    let vault = address::stake_vault(&first_page);
    let accounts = interface::ExecuteSlashAccounts {
        case: at.0,
        opener: case.opener,
        device_key: address::device(&Address(case.device)).0,
        page: case.page,
        first_page: first_page.0,
        vault: vault.0,
        mint: mint.0,
        bounty: bounty.0,
        refund: refund.unwrap_or(vault).0,
        rules: address::rules().0,
    };
    build_fixed(accounts.metas(), interface::ExecuteSlash {}.encode())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Keypair;

    #[test]
    fn a_check_holds_its_parts_where_its_offsets_say() {
        let key = Keypair::from_seed(&[1; 32]);
        let (message, address) = (b"what was said".as_slice(), key.address());
        let check = ed25519_check(address, &key.sign(message), message).unwrap();
        let at = |place: usize| usize::from(u16::from_le_bytes([check.data[place], check.data[place + 1]]));
        assert_eq!(check.data[at(2)..][..64], key.sign(message).0);
        assert_eq!(check.data[at(6)..][..32], address.0);
        assert_eq!(&check.data[at(10)..][..at(12)], message);
        assert_eq!(ed25519_check(address, &key.sign(message), &[0; 1 << 16]), Err(Error::InstructionMalformed));
    }

    #[test]
    fn what_nothing_holds_is_shown_as_its_page_and_who_nobody_harmed_as_the_vault() {
        let (opener, supplier) = (Address([1; 32]), Address([2; 32]));
        let statement =
            Statement { network_root: [3; 32], device: [4; 32], seed: [5; 32], n: 32, root: [6; 32], at: 7 };
        let data = interface::OpenFraud { check: 0, page_no: 1 };
        let page = address::page(&supplier, 1);
        let free = open_fraud(opener, supplier, &statement, None, &data);
        assert_eq!([free.accounts[5].address, free.accounts[6].address], [page; 2]);
        let held = Held { lease: Address([8; 32]), order: Address([9; 32]) };
        let leased = open_fraud(opener, supplier, &statement, Some(held), &data);
        assert_eq!([leased.accounts[5].address, leased.accounts[6].address], [held.lease, held.order]);
        let case = FraudCase { first_page: page.0, ..FraudCase::new() };
        let spared = execute_slash(case_of(&statement), &case, opener, opener, None);
        assert_eq!(spared.accounts[8].address, address::stake_vault(&page));
    }
}
