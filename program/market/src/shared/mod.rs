//! What the instructions share: their context, account views, addresses, tokens, hash and time.

pub(crate) mod account;
pub(crate) mod address;
pub(crate) mod authority;
pub(crate) mod runtime;
pub(crate) mod slot;
pub(crate) mod token;

use atoll_interface::{
    Error,
    instruction::{SIGNER, WRITABLE},
};
use pinocchio::{AccountView, Address, error::ProgramError};

/// One call of one instruction.
pub(crate) struct Cx<'a> {
    pub(crate) program: &'a Address,
    pub(crate) accounts: &'a mut [AccountView],
    /// The data after the instruction's number.
    pub(crate) fields: &'a [u8],
}

impl Cx<'_> {
    /// The instruction's accounts, with the signatures and write rights that its table asks for.
    pub(crate) fn take<const N: usize>(&self, flags: &[u8; N]) -> Result<[AccountView; N], Fault> {
        let (accounts, _) = self.accounts.split_first_chunk::<N>().ok_or(Error::AccountsMissing)?;
        for (account, flags) in accounts.iter().zip(flags) {
            if flags & SIGNER != 0 && !account.is_signer() {
                return Err(Error::SignerMissing.into());
            }
            if flags & WRITABLE != 0 && !account.is_writable() {
                return Err(Error::NotWritable.into());
            }
        }
        Ok(*accounts)
    }
}

/// Why an instruction failed: a refusal of this program, or an error of the runtime.
pub(crate) struct Fault(pub(crate) ProgramError);

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self(ProgramError::Custom(error.code()))
    }
}

impl From<ProgramError> for Fault {
    fn from(error: ProgramError) -> Self {
        Self(error)
    }
}

/// What a handler returns.
pub(crate) type Outcome = Result<(), Fault>;
