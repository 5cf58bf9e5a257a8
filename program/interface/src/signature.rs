//! Signatures that a transaction checked beside our instruction, as the instructions sysvar tells.
//!
//! The runtime's ed25519 program verifies; here it is only read which key and message it verified. Only an instruction
//! whose parts all lie in its own data is taken, so that nothing else in the transaction can lend it other bytes.

use crate::{
    Address, Error, Hash,
    network::{VOTE_DOMAIN, VOTE_LEN},
};

/// Address of the instructions sysvar, `Sysvar1nstructions1111111111111111111111111`.
pub const INSTRUCTIONS_ID: Address = [
    6, 167, 213, 23, 24, 123, 209, 102, 53, 218, 212, 4, 85, 253, 194, 192, 193, 36, 198, 143, 33, 86, 117, 165, 219,
    186, 203, 95, 8, 0, 0, 0,
];
/// Address of the ed25519 program, `Ed25519SigVerify111111111111111111111111111`.
pub const ED25519_ID: Address = [
    3, 125, 70, 214, 124, 147, 251, 190, 18, 249, 66, 143, 131, 141, 64, 255, 5, 112, 116, 73, 39, 244, 138, 100, 252,
    202, 112, 68, 128, 0, 0, 0,
];

/// "In this very instruction", where an offset names one.
const SAME: u16 = u16::MAX;

/// One signature that the runtime verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signed<'a> {
    /// Who signed.
    pub key: &'a Address,
    /// What was signed.
    pub message: &'a [u8],
}

fn part(data: &[u8], at: usize, len: usize) -> Option<&[u8]> {
    data.get(at..at.checked_add(len)?)
}

fn number(data: &[u8], at: usize) -> Option<u16> {
    part(data, at, 2)?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes))
}

/// Program and data of one instruction of the transaction, out of the instructions sysvar: a count, an offset each, and
/// there the accounts (33 bytes each, behind their count), the program, and the data behind its length.
fn instruction(sysvar: &[u8], index: u16) -> Option<(&Address, &[u8])> {
    if index >= number(sysvar, 0)? {
        return None;
    }
    let start = usize::from(number(sysvar, 2 + 2 * usize::from(index))?);
    let program = start + 2 + 33 * usize::from(number(sysvar, start)?);
    let len = usize::from(number(sysvar, program + 32)?);
    Some((part(sysvar, program, 32)?.first_chunk()?, part(sysvar, program + 34, len)?))
}

/// The one signature that instruction `index` of the transaction verified.
///
/// # Errors
/// [`Error::SignatureMissing`] when it is no ed25519 instruction of one signature with its parts in its own data.
pub fn signed(sysvar: &[u8], index: u16) -> Result<Signed<'_>, Error> {
    checked(sysvar, index).ok_or(Error::SignatureMissing)
}

fn checked(sysvar: &[u8], index: u16) -> Option<Signed<'_>> {
    let (program, data) = instruction(sysvar, index)?;
    let field = |at: usize| number(data, 2 + 2 * at);
    let own = field(1)? == SAME && field(3)? == SAME && field(6)? == SAME;
    if *program != ED25519_ID || *data.first()? != 1 || !own {
        return None;
    }
    let key = part(data, usize::from(field(2)?), 32)?.first_chunk()?;
    let message = part(data, usize::from(field(4)?), usize::from(field(5)?))?;
    Some(Signed { key, message })
}

/// An attestor's vote, signed off chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vote<'a> {
    /// The network it is meant for.
    pub network_root: &'a Hash,
    /// The epoch.
    pub epoch: u64,
    /// The root voted for.
    pub root: &'a Hash,
}

impl<'a> Vote<'a> {
    /// Reads what [`crate::network::vote_message`] wrote.
    ///
    /// # Errors
    /// [`Error::StatementWrong`] for another length or domain.
    pub fn parse(message: &'a [u8]) -> Result<Self, Error> {
        let rest = message.strip_prefix(VOTE_DOMAIN).filter(|_| message.len() == VOTE_LEN);
        let (network_root, rest) = rest.and_then(<[u8]>::split_first_chunk).ok_or(Error::StatementWrong)?;
        let (epoch, rest) = rest.split_first_chunk().ok_or(Error::StatementWrong)?;
        let root = rest.first_chunk().ok_or(Error::StatementWrong)?;
        Ok(Self { network_root, epoch: u64::from_le_bytes(*epoch), root })
    }
}

/// Whether two signed votes show that `key` voted for two roots of one epoch of one network.
///
/// # Errors
/// [`Error::StatementWrong`] for what is no vote of this network, [`Error::NotEquivocation`] otherwise.
pub fn equivocates(key: &Address, network_root: &Hash, first: Signed<'_>, second: Signed<'_>) -> Result<(), Error> {
    let votes = (Vote::parse(first.message)?, Vote::parse(second.message)?);
    if votes.0.network_root != network_root || votes.1.network_root != network_root {
        return Err(Error::StatementWrong);
    }
    let both = first.key == key && second.key == key;
    if both && votes.0.epoch == votes.1.epoch && votes.0.root != votes.1.root {
        return Ok(());
    }
    Err(Error::NotEquivocation)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::vote_message;
    use proptest::prelude::*;
    use std::{vec, vec::Vec};

    fn check(key: u8, message: &[u8]) -> Vec<u8> {
        let mut data = vec![1, 0];
        for word in [16, SAME, 80, SAME, 112, u16::try_from(message.len()).unwrap(), SAME] {
            data.extend_from_slice(&word.to_le_bytes());
        }
        data.extend_from_slice(&[9; 64]);
        data.extend_from_slice(&[key; 32]);
        data.extend_from_slice(message);
        data
    }

    fn sysvar(instructions: &[(Address, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = u16::try_from(instructions.len()).unwrap().to_le_bytes().to_vec();
        let mut bodies = vec![];
        for (index, (program, data)) in instructions.iter().enumerate() {
            let at = 2 + 2 * instructions.len() + bodies.len();
            bytes.extend_from_slice(&u16::try_from(at).unwrap().to_le_bytes());
            let accounts = u16::try_from(index).unwrap();
            bodies.extend_from_slice(&accounts.to_le_bytes());
            bodies.extend(std::iter::repeat_n(7, 33 * index));
            bodies.extend_from_slice(program);
            bodies.extend_from_slice(&u16::try_from(data.len()).unwrap().to_le_bytes());
            bodies.extend_from_slice(data);
        }
        bytes.extend(bodies);
        bytes.extend_from_slice(&[0, 0]);
        bytes
    }

    #[test]
    fn only_a_whole_check_of_one_signature_counts() {
        let good = check(5, b"words");
        let all = sysvar(&[([1; 32], vec![1]), (ED25519_ID, good.clone()), ([5; 32], good.clone())]);
        assert_eq!(signed(&all, 1), Ok(Signed { key: &[5; 32], message: b"words" }));
        for index in [0, 2, 3, u16::MAX] {
            assert_eq!(signed(&all, index), Err(Error::SignatureMissing), "{index}");
        }
        // More or no signatures, and parts out of another instruction.
        for (at, byte) in [(0, 0), (0, 2), (4, 0), (8, 0), (14, 0)] {
            let mut other = good.clone();
            other[at] = byte;
            assert_eq!(signed(&sysvar(&[(ED25519_ID, other)]), 0), Err(Error::SignatureMissing), "{at}");
        }
    }

    #[test]
    fn equivocation_is_one_key_one_epoch_two_roots() {
        let vote = |network: u8, epoch, root: u8| vote_message(&[network; 32], epoch, &[root; 32]);
        let (a, b) = (vote(1, 7, 1), vote(1, 7, 2));
        let by = |key: &'static Address, message: &'static [u8; VOTE_LEN]| Signed { key, message };
        let leak = |message| &*std::boxed::Box::leak(std::boxed::Box::new(message));
        let (key, other): (&Address, &Address) = (&[5; 32], &[6; 32]);
        let judge = |first, second| equivocates(key, &[1; 32], first, second);
        let (a, b) = (by(key, leak(a)), by(key, leak(b)));
        assert_eq!(judge(a, b), Ok(()));
        assert_eq!(judge(a, a), Err(Error::NotEquivocation));
        assert_eq!(judge(a, Signed { key: other, ..b }), Err(Error::NotEquivocation));
        assert_eq!(judge(Signed { key: other, ..a }, Signed { key: other, ..b }), Err(Error::NotEquivocation));
        assert_eq!(judge(a, by(key, leak(vote(1, 8, 2)))), Err(Error::NotEquivocation));
        assert_eq!(judge(a, by(key, leak(vote(2, 7, 2)))), Err(Error::StatementWrong));
        assert_eq!(judge(a, Signed { key, message: b"atoll/vote/1" }), Err(Error::StatementWrong));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400), index: u16) {
            let _ = signed(&bytes, index % 4);
            let _ = Vote::parse(&bytes);
        }
    }
}
