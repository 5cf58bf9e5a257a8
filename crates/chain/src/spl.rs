//! The programs every Solana cluster has: system, token, associated token, compute budget. Pure.
//!
//! Instruction builders and account readers that Atoll's client needs, no more. Layouts are those of the programs' own
//! interface crates (`solana-system-interface`, `spl-token-interface`, `spl-associated-token-account-interface`).

use crate::address::Address;
use crate::transaction::{AccountMeta, Instruction};

/// The system program: makes accounts, moves lamports.
pub const SYSTEM_PROGRAM: Address = Address([0; 32]);
/// The token program.
pub const TOKEN_PROGRAM: Address = Address::constant("TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA");
/// The associated token account program.
pub const ASSOCIATED_TOKEN_PROGRAM: Address = Address::constant("ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL");
/// The compute budget program.
pub const COMPUTE_BUDGET_PROGRAM: Address = Address::constant("ComputeBudget111111111111111111111111111111");
/// The account that holds the cluster's clock.
pub const CLOCK_SYSVAR: Address = Address::constant("SysvarC1ock11111111111111111111111111111111");

/// Bytes of a mint account.
pub const MINT_BYTES: u64 = 82;
/// Bytes of a token account.
pub const TOKEN_ACCOUNT_BYTES: u64 = 165;
/// Lamports in one SOL.
pub const LAMPORTS_PER_SOL: u64 = 1_000_000_000;

/// A token account's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenAccount {
    /// The mint whose tokens it holds.
    pub mint: Address,
    /// Who may spend them.
    pub owner: Address,
    /// How many, in base units.
    pub amount: u64,
}

/// A mint's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mint {
    /// Who may mint more; nobody when absent.
    pub authority: Option<Address>,
    /// All base units in existence.
    pub supply: u64,
    /// Base units of one token are 10 to this power.
    pub decimals: u8,
}

/// The cluster's clock as programs see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// The slot.
    pub slot: u64,
    /// Seconds since 1970.
    pub unix_timestamp: i64,
}

/// Moves lamports between wallets.
#[must_use]
pub fn system_transfer(from: Address, to: Address, lamports: u64) -> Instruction {
    Instruction {
        program: SYSTEM_PROGRAM,
        accounts: vec![AccountMeta::sign_write(from), AccountMeta::write(to)],
        data: [&2_u32.to_le_bytes()[..], &lamports.to_le_bytes()].concat(),
    }
}

/// Makes an account of `space` zero bytes that `owner` (a program) may write. The new account's key signs.
#[must_use]
pub fn create_account(payer: Address, account: Address, lamports: u64, space: u64, owner: Address) -> Instruction {
    Instruction {
        program: SYSTEM_PROGRAM,
        accounts: vec![AccountMeta::sign_write(payer), AccountMeta::sign_write(account)],
        data: [&0_u32.to_le_bytes()[..], &lamports.to_le_bytes(), &space.to_le_bytes(), &owner.0].concat(),
    }
}

/// Turns a fresh account of [`MINT_BYTES`] into a mint without freeze authority (`InitializeMint2`).
#[must_use]
pub fn initialize_mint(mint: Address, authority: Address, decimals: u8) -> Instruction {
    Instruction {
        program: TOKEN_PROGRAM,
        accounts: vec![AccountMeta::write(mint)],
        data: [&[20, decimals][..], &authority.0, &[0]].concat(),
    }
}

/// Makes new tokens in `account`.
#[must_use]
pub fn mint_to(mint: Address, account: Address, authority: Address, amount: u64) -> Instruction {
    Instruction {
        program: TOKEN_PROGRAM,
        accounts: vec![AccountMeta::write(mint), AccountMeta::write(account), AccountMeta::sign(authority)],
        data: [&[7][..], &amount.to_le_bytes()].concat(),
    }
}

/// Moves tokens; the token program checks mint and decimals too (`TransferChecked`).
#[must_use]
pub fn token_transfer(
    from: Address,
    mint: Address,
    to: Address,
    owner: Address,
    amount: u64,
    decimals: u8,
) -> Instruction {
    Instruction {
        program: TOKEN_PROGRAM,
        accounts: vec![
            AccountMeta::write(from),
            AccountMeta::read(mint),
            AccountMeta::write(to),
            AccountMeta::sign(owner),
        ],
        data: [&[12][..], &amount.to_le_bytes(), &[decimals]].concat(),
    }
}

/// The one token account of `wallet` for `mint` that everybody can derive.
#[must_use]
pub fn associated_token_address(wallet: &Address, mint: &Address) -> Address {
    let seeds: [&[u8]; 3] = [&wallet.0, &TOKEN_PROGRAM.0, &mint.0];
    Address::find_program_address(&seeds, &ASSOCIATED_TOKEN_PROGRAM).expect("three seeds of 32 bytes are in bounds").0
}

/// Makes the associated token account of `wallet`; does nothing when it is there (`CreateIdempotent`).
#[must_use]
pub fn create_associated_token(payer: Address, wallet: Address, mint: Address) -> Instruction {
    Instruction {
        program: ASSOCIATED_TOKEN_PROGRAM,
        accounts: vec![
            AccountMeta::sign_write(payer),
            AccountMeta::write(associated_token_address(&wallet, &mint)),
            AccountMeta::read(wallet),
            AccountMeta::read(mint),
            AccountMeta::read(SYSTEM_PROGRAM),
            AccountMeta::read(TOKEN_PROGRAM),
        ],
        data: vec![1],
    }
}

/// Sets how many compute units the transaction may use; without it each instruction brings 200,000.
#[must_use]
pub fn compute_unit_limit(units: u32) -> Instruction {
    Instruction { program: COMPUTE_BUDGET_PROGRAM, accounts: vec![], data: [&[2][..], &units.to_le_bytes()].concat() }
}

impl TokenAccount {
    /// Reads a token account's bytes; none when they are no initialised token account.
    #[must_use]
    pub fn read(data: &[u8]) -> Option<Self> {
        let initialised = data.len() == 165 && matches!(data[108], 1 | 2);
        initialised.then_some(())?;
        Some(Self { mint: address_at(data, 0)?, owner: address_at(data, 32)?, amount: u64_at(data, 64)? })
    }
}

impl Mint {
    /// Reads a mint's bytes; none when they are no initialised mint.
    #[must_use]
    pub fn read(data: &[u8]) -> Option<Self> {
        let initialised = data.len() == 82 && data[45] == 1;
        initialised.then_some(())?;
        let authority = match data[..4] {
            [0, 0, 0, 0] => None,
            [1, 0, 0, 0] => Some(address_at(data, 4)?),
            _ => return None,
        };
        Some(Self { authority, supply: u64_at(data, 36)?, decimals: data[44] })
    }
}

impl Clock {
    /// Reads the bytes of [`CLOCK_SYSVAR`].
    #[must_use]
    pub fn read(data: &[u8]) -> Option<Self> {
        (data.len() == 40).then_some(())?;
        Some(Self { slot: u64_at(data, 0)?, unix_timestamp: u64_at(data, 32)?.cast_signed() })
    }
}

fn address_at(data: &[u8], at: usize) -> Option<Address> {
    data.get(at..at + 32)?.try_into().ok().map(Address)
}

fn u64_at(data: &[u8], at: usize) -> Option<u64> {
    data.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes)
}

/// What a numbered error of the token program means, in words.
#[must_use]
pub const fn token_error(code: u32) -> Option<&'static str> {
    Some(match code {
        0 => "the token account is below the rent-free balance",
        1 => "not enough tokens in the account",
        2 => "not a mint",
        3 => "the token account belongs to another mint",
        4 => "the owner of the token account is another",
        5 => "the supply is fixed",
        6 => "the account is already in use",
        9 => "the account is not initialised",
        14 => "the amount is too large",
        15 => "the authority has been removed",
        17 => "the token account is frozen",
        18 => "the decimals are not the mint's",
        _ => return None,
    })
}

/// What a numbered error of the system program means, in words.
#[must_use]
pub const fn system_error(code: u32) -> Option<&'static str> {
    Some(match code {
        0 => "an account with this address already exists",
        1 => "not enough lamports in the account",
        2 => "the program may not own accounts",
        3 => "the account is too large",
        5 => "the address does not match its seeds",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_refuse_other_lengths_and_uninitialised_accounts() {
        assert_eq!(TokenAccount::read(&[0; 165]), None);
        assert_eq!(TokenAccount::read(&[1; 164]), None);
        assert_eq!(Mint::read(&[0; 82]), None);
        assert_eq!(Mint::read(&[1; 83]), None);
        assert_eq!(Clock::read(&[0; 39]), None);
        let mut mint = [0; 82];
        mint[36..44].copy_from_slice(&5_u64.to_le_bytes());
        mint[44] = 9;
        mint[45] = 1;
        assert_eq!(Mint::read(&mint), Some(Mint { authority: None, supply: 5, decimals: 9 }));
        mint[0] = 2;
        assert_eq!(Mint::read(&mint), None);
    }
}
