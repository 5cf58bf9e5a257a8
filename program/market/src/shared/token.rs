//! SPL tokens: reading token accounts and calling the token program.

use super::{
    Fault, Outcome,
    account::{self, Make},
    address,
};
use atoll_interface::{
    ATL_DECIMALS, Address as Bytes, Error, TOKEN_PROGRAM_ID,
    layout::{Dispute, FleetPage, Order, Vesting},
    seeds,
};
use pinocchio::{
    AccountView, Address,
    cpi::{Seed, Signer, invoke, invoke_signed},
    instruction::{InstructionAccount, InstructionView},
};

const TOKEN: Address = Address::new_from_array(TOKEN_PROGRAM_ID);

/// Bytes of a token account.
const ACCOUNT_LEN: usize = 165;
/// Bytes of a mint.
const MINT_LEN: usize = 82;

/// A token account as the market sees it.
pub(crate) struct TokenAccount {
    pub(crate) owner: Bytes,
    pub(crate) amount: u64,
}

fn part<const N: usize>(data: &[u8], at: usize) -> Result<[u8; N], Fault> {
    let tail = data.get(at..).and_then(|tail| tail.first_chunk::<N>());
    tail.copied().ok_or(Error::TokenAccountWrong.into())
}

/// Reads an initialised token account of a mint.
///
/// # Errors
/// [`Error::TokenAccountWrong`] when it is anything else.
#[inline(never)]
pub(crate) fn read(account: &AccountView, mint: &Bytes) -> Result<TokenAccount, Fault> {
    if !account.owned_by(&TOKEN) || account.data_len() != ACCOUNT_LEN {
        return Err(Error::TokenAccountWrong.into());
    }
    let data = account.try_borrow()?;
    let [state] = part(&data, 108)?;
    if !address::same(&part(&data, 0)?, mint) || state != 1 {
        return Err(Error::TokenAccountWrong.into());
    }
    Ok(TokenAccount { owner: part(&data, 32)?, amount: u64::from_le_bytes(part(&data, 64)?) })
}

/// Checks that a token account of the mint belongs to a wallet or a program's address; returns its balance.
pub(crate) fn owned(account: &AccountView, mint: &Bytes, owner: &Bytes) -> Result<u64, Fault> {
    let read = read(account, mint)?;
    if address::same(&read.owner, owner) { Ok(read.amount) } else { Err(Error::TokenAccountWrong.into()) }
}

/// Checks that a token account of the mint belongs to a wallet.
pub(crate) fn expect_owner(account: &AccountView, mint: &Bytes, owner: &Bytes) -> Result<(), Fault> {
    owned(account, mint, owner).map(drop)
}

/// Checks that a mint is fit to be the network's: 9 decimals, initialised, and nobody can freeze accounts.
pub(crate) fn expect_mint(mint: &AccountView) -> Result<(), Fault> {
    if !mint.owned_by(&TOKEN) || mint.data_len() != MINT_LEN {
        return Err(Error::MintWrong.into());
    }
    let data = mint.try_borrow()?;
    let [decimals, initialised] = part(&data, 44)?;
    let freeze = u32::from_le_bytes(part(&data, 46)?);
    if decimals == ATL_DECIMALS && initialised == 1 && freeze == 0 { Ok(()) } else { Err(Error::MintWrong.into()) }
}

/// Supply of a checked mint, base units.
pub(crate) fn supply(mint: &AccountView) -> Result<u64, Fault> {
    Ok(u64::from_le_bytes(part(&mint.try_borrow()?, 36)?))
}

/// A vault to be made at the canonical address of some seeds.
pub(crate) struct MakeVault<'a> {
    pub(crate) program: &'a Address,
    pub(crate) payer: &'a AccountView,
    pub(crate) vault: &'a AccountView,
    pub(crate) mint: &'a AccountView,
    pub(crate) seeds: [&'a [u8]; 2],
    pub(crate) owner: &'a Bytes,
}

/// Makes a vault; returns the bump.
#[inline(never)]
pub(crate) fn make(new: &MakeVault<'_>) -> Result<u8, Fault> {
    let &MakeVault { program, payer, vault, mint, ref seeds, owner } = new;
    let account = Make { program, payer, account: vault, seeds, space: ACCOUNT_LEN, owner: &TOKEN };
    let bump = account::make(&account)?;
    let mut data = [18; 33];
    data[1..].copy_from_slice(owner);
    let accounts = [InstructionAccount::writable(vault.address()), InstructionAccount::readonly(mint.address())];
    let instruction = InstructionView { program_id: &TOKEN, data: &data, accounts: &accounts };
    invoke(&instruction, &[vault, mint])?;
    Ok(bump)
}

/// The balance of a vault whose address is checked.
pub(crate) fn balance(vault: &AccountView) -> Result<u64, Fault> {
    Ok(u64::from_le_bytes(part(&vault.try_borrow()?, 64)?))
}

/// The balance of a token account of a checked vault's mint.
pub(crate) fn balance_beside(account: &AccountView, vault: &AccountView) -> Result<u64, Fault> {
    let mint: Bytes = part(&vault.try_borrow()?, 0)?;
    Ok(read(account, &mint)?.amount)
}

/// Checks that a mint is a checked vault's.
pub(crate) fn expect_mint_of(mint: &AccountView, vault: &AccountView) -> Result<(), Fault> {
    address::expect(mint, &part(&vault.try_borrow()?, 0)?)
}

/// Checks that a token account of a checked vault's mint belongs to a wallet.
pub(crate) fn expect_paid_to(account: &AccountView, vault: &AccountView, owner: &Bytes) -> Result<(), Fault> {
    let mint: Bytes = part(&vault.try_borrow()?, 0)?;
    expect_owner(account, &mint, owner)
}

/// The seeds with which an order signs for its vault, kept apart from the account's bytes, which a call must not hold
/// borrowed.
pub(crate) struct OrderSeeds {
    renter: Bytes,
    nonce: [u8; 8],
    bump: [u8; 1],
}

impl OrderSeeds {
    pub(crate) fn of(order: &Order) -> Self {
        Self { renter: order.renter, nonce: order.nonce.to_le_bytes(), bump: [order.bump] }
    }

    pub(crate) fn seeds(&self) -> [Seed<'_>; 4] {
        let [prefix, renter, nonce] = seeds::order(&self.renter, &self.nonce);
        [Seed::from(prefix), Seed::from(renter), Seed::from(nonce), Seed::from(&self.bump)]
    }
}

/// The seeds with which a supplier's page 0 signs for its stake vault, kept apart as [`OrderSeeds`].
pub(crate) struct PageSeeds {
    supplier: Bytes,
    page_no: [u8; 2],
    bump: [u8; 1],
}

impl PageSeeds {
    pub(crate) fn of(page: &FleetPage) -> Self {
        Self { supplier: page.supplier, page_no: page.page_no.to_le_bytes(), bump: [page.bump] }
    }

    pub(crate) fn seeds(&self) -> [Seed<'_>; 4] {
        let [prefix, supplier, page_no] = seeds::page(&self.supplier, &self.page_no);
        [Seed::from(prefix), Seed::from(supplier), Seed::from(page_no), Seed::from(&self.bump)]
    }
}

/// The seeds with which a dispute signs for its vault, kept apart as [`OrderSeeds`].
pub(crate) struct DisputeSeeds {
    lease: Bytes,
    epoch: [u8; 8],
    bump: [u8; 1],
}

impl DisputeSeeds {
    pub(crate) fn of(dispute: &Dispute) -> Self {
        Self { lease: dispute.lease, epoch: dispute.epoch.to_le_bytes(), bump: [dispute.bump] }
    }

    pub(crate) fn seeds(&self) -> [Seed<'_>; 4] {
        let [prefix, lease, epoch] = seeds::dispute(&self.lease, &self.epoch);
        [Seed::from(prefix), Seed::from(lease), Seed::from(epoch), Seed::from(&self.bump)]
    }
}

/// The seeds with which a vesting signs for its vault, kept apart as [`OrderSeeds`].
pub(crate) struct VestingSeeds {
    beneficiary: Bytes,
    n: [u8; 2],
    bump: [u8; 1],
}

impl VestingSeeds {
    pub(crate) fn of(vesting: &Vesting) -> Self {
        Self { beneficiary: vesting.beneficiary, n: vesting.n.to_le_bytes(), bump: [vesting.bump] }
    }

    pub(crate) fn seeds(&self) -> [Seed<'_>; 4] {
        let [prefix, beneficiary, n] = seeds::vesting(&self.beneficiary, &self.n);
        [Seed::from(prefix), Seed::from(beneficiary), Seed::from(n), Seed::from(&self.bump)]
    }
}

fn amount_data(tag: u8, amount: u64) -> [u8; 9] {
    let mut data = [tag; 9];
    data[1..].copy_from_slice(&amount.to_le_bytes());
    data
}

/// A call of the token program on a vault or a wallet's token account. A struct because calls on this target pass five
/// words.
pub(crate) struct Call<'a> {
    /// The account that gives.
    pub(crate) from: &'a AccountView,
    /// The account that receives, or the mint that burns.
    pub(crate) to: &'a AccountView,
    /// The owner of `from`: it signed the transaction, or `seeds` sign for it.
    pub(crate) authority: &'a AccountView,
    /// Seeds and bump of `authority`; empty when it signed.
    pub(crate) seeds: &'a [Seed<'a>],
}

impl Call<'_> {
    /// Moves tokens.
    pub(crate) fn transfer(&self, amount: u64) -> Outcome {
        self.invoke(&amount_data(3, amount))
    }

    /// Burns tokens; `to` is the mint.
    pub(crate) fn burn(&self, amount: u64) -> Outcome {
        self.invoke(&amount_data(8, amount))
    }

    /// Closes the empty account `from`; its lamports go to `to`.
    pub(crate) fn close(&self) -> Outcome {
        self.invoke(&[9])
    }

    #[inline(never)]
    fn invoke(&self, data: &[u8]) -> Outcome {
        let Self { from, to, authority, seeds } = self;
        let accounts = [
            InstructionAccount::writable(from.address()),
            InstructionAccount::writable(to.address()),
            InstructionAccount::readonly_signer(authority.address()),
        ];
        let instruction = InstructionView { program_id: &TOKEN, data, accounts: &accounts };
        if seeds.is_empty() {
            return Ok(invoke(&instruction, &[from, to, authority])?);
        }
        Ok(invoke_signed(&instruction, &[from, to, authority], &[Signer::from(*seeds)])?)
    }
}
