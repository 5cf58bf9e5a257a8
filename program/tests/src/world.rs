//! One chain with the market program, a mint and a clock.

use crate::calls::Call;
use atoll_interface::{
    Address, Error, Hash, PROGRAM_ID, SYSTEM_PROGRAM_ID, TOKEN_PROGRAM_ID, layout::Record, signature::ED25519_ID,
};
use litesvm::{LiteSVM, types::TransactionMetadata};
use sha2::{Digest, Sha256};
use solana_account::Account;
use solana_address::Address as Pubkey;
use solana_clock::Clock;
use solana_instruction::{AccountMeta, Instruction};
use solana_instruction_error::InstructionError;
use solana_keypair::Keypair;
use solana_message::Message;
use solana_signer::Signer;
use solana_transaction::Transaction;
use solana_transaction_error::TransactionError;
use std::{
    cell::Cell,
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// The largest transaction that a Solana cluster takes, bytes.
pub const TRANSACTION_LEN_MAX: usize = 1232;
/// Unix second at which a world starts.
pub const START: i64 = 1_800_000_000;
/// Base units minted to each wallet.
pub const PURSE: u64 = 1_000_000_000_000_000;

/// Why a transaction did not go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The market refused, by rule.
    Market(Error),
    /// Another program or the runtime refused.
    Runtime,
}

/// SHA-256 over the concatenated parts.
pub fn sha256(parts: &[&[u8]]) -> Hash {
    parts.iter().fold(Sha256::new(), |hasher, part| hasher.chain_update(part)).finalize().into()
}

/// Finds a program address of the market.
pub fn pda(seeds: &[&[u8]]) -> Address {
    Pubkey::find_program_address(seeds, &PROGRAM_ID.into()).0.to_bytes()
}

/// The program's bytes under test: the committed ones, or those that `ATOLL_MARKET_SO` names, such as those of `cargo build-sbf`
/// before they are deployed.
pub fn program() -> PathBuf {
    let committed = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../market.so");
    std::env::var_os("ATOLL_MARKET_SO").map_or_else(committed, Into::into)
}

/// One chain.
pub struct World {
    pub svm: LiteSVM,
    keys: BTreeMap<Address, Keypair>,
    pub admin: Address,
    pub node: Address,
    pub attestor: Address,
    pub mint: Address,
    pub treasury: Address,
    /// Largest transaction sent so far, bytes.
    pub largest: Cell<usize>,
}

/// The accounts that a dry run leaves, or why it fails and its log.
pub type Simulated = Result<Vec<(Address, Vec<u8>)>, (String, Vec<String>)>;

impl World {
    /// A chain with the program, the mint and funded operator keys; the network is not made yet.
    pub fn bare() -> Self {
        Self::with_program(&program())
    }

    /// As [`World::bare`], with other program bytes.
    pub fn with_program(path: &Path) -> Self {
        let mut svm = LiteSVM::new();
        svm.add_program_from_file(Pubkey::from(PROGRAM_ID), path)
            .unwrap_or_else(|error| panic!("{}: {error:?}; run `cargo xtask program build`", path.display()));
        Self::on(svm)
    }

    /// The mint and funded operator keys on a chain.
    pub(crate) fn on(svm: LiteSVM) -> Self {
        let mut world = Self {
            svm,
            keys: BTreeMap::new(),
            admin: [0; 32],
            node: [0; 32],
            attestor: [0; 32],
            mint: sha256(&[b"mint"]),
            treasury: sha256(&[b"treasury"]),
            largest: Cell::new(0),
        };
        world.admin = world.key("admin");
        world.node = world.key("node");
        world.attestor = world.key("attestor");
        let mut mint = vec![0; 82];
        mint[0] = 1;
        mint[4..36].copy_from_slice(&world.admin);
        mint[44] = 9;
        mint[45] = 1;
        world.put(world.mint, TOKEN_PROGRAM_ID, mint);
        world.token(world.treasury, world.admin, 0);
        world.set_time(START);
        world
    }

    /// Another chain with the same accounts and keys.
    pub fn copy(&self) -> Self {
        let keys = self.keys.iter().map(|(address, key)| (*address, key.insecure_clone()));
        let (svm, keys, largest) = (self.svm.clone(), keys.collect(), self.largest.clone());
        Self { svm, keys, largest, ..*self }
    }

    /// Puts other program bytes in the place of the present ones; the accounts stay.
    pub fn upgrade(&mut self, path: &Path) {
        self.svm.add_program_from_file(Pubkey::from(PROGRAM_ID), path).expect("the program loads");
    }

    /// A funded key, the same for the same name.
    pub fn key(&mut self, name: &str) -> Address {
        let key = Keypair::new_from_array(sha256(&[b"key", name.as_bytes()]));
        let address = key.pubkey().to_bytes();
        self.keys.insert(address, key);
        if self.svm.get_account(&address.into()).is_none() {
            self.svm.airdrop(&address.into(), 1_000_000_000_000).unwrap();
        }
        address
    }

    pub(crate) fn keypair(&self, address: &Address) -> Option<&Keypair> {
        self.keys.get(address)
    }

    /// A key that holds no lamports.
    pub fn poor_key(&mut self, name: &str) -> Address {
        let key = Keypair::new_from_array(sha256(&[b"key", name.as_bytes()]));
        let address = key.pubkey().to_bytes();
        self.keys.insert(address, key);
        address
    }

    /// Data of the ed25519 instruction that checks a key's signature over a message.
    pub fn check(&self, signer: &Address, message: &[u8]) -> Vec<u8> {
        let signature = self.keys[signer].sign_message(message);
        let here = u16::MAX;
        let words = [16, here, 80, here, 112, u16::try_from(message.len()).unwrap(), here];
        let words: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        [&[1, 0], &words[..], signature.as_ref(), signer, message].concat()
    }

    /// Puts an account as given.
    pub fn put(&mut self, at: Address, owner: Address, data: Vec<u8>) {
        let lamports = self.svm.minimum_balance_for_rent_exemption(data.len());
        let account = Account { lamports, data, owner: owner.into(), executable: false, rent_epoch: 0 };
        self.svm.set_account(at.into(), account).unwrap();
    }

    /// Mints `amount` into a new token account.
    pub fn token(&mut self, at: Address, owner: Address, amount: u64) {
        let mut data = vec![0; 165];
        data[..32].copy_from_slice(&self.mint);
        data[32..64].copy_from_slice(&owner);
        data[64..72].copy_from_slice(&amount.to_le_bytes());
        data[108] = 1;
        self.put(at, TOKEN_PROGRAM_ID, data);
        let mut mint = self.svm.get_account(&self.mint.into()).unwrap();
        let supply = self.supply() + amount;
        mint.data[36..44].copy_from_slice(&supply.to_le_bytes());
        self.svm.set_account(self.mint.into(), mint).unwrap();
    }

    /// A wallet's token account with [`PURSE`] base units.
    pub fn purse(&mut self, owner: Address) -> Address {
        let at = sha256(&[b"purse", &owner]);
        self.token(at, owner, PURSE);
        at
    }

    /// Supply of the mint.
    pub fn supply(&self) -> u64 {
        let mint = self.svm.get_account(&self.mint.into()).unwrap();
        u64::from_le_bytes(mint.data[36..44].try_into().unwrap())
    }

    /// Balance of a token account; 0 when there is none.
    pub fn tokens(&self, at: Address) -> u64 {
        self.data(at).map_or(0, |data| u64::from_le_bytes(data[64..72].try_into().unwrap()))
    }

    /// Sum over all token accounts of the mint.
    pub fn tokens_everywhere(&self) -> u64 {
        let all = self.svm.get_program_accounts(&TOKEN_PROGRAM_ID.into());
        let held = all.iter().filter(|(_, account)| account.data.len() == 165 && account.data[..32] == self.mint);
        held.map(|(_, account)| u64::from_le_bytes(account.data[64..72].try_into().unwrap())).sum()
    }

    /// Lamports of an account.
    pub fn lamports(&self, at: Address) -> u64 {
        self.svm.get_balance(&at.into()).unwrap_or(0)
    }

    /// Bytes of a living account.
    pub fn data(&self, at: Address) -> Option<Vec<u8>> {
        self.svm.get_account(&at.into()).filter(|account| account.lamports > 0).map(|account| account.data)
    }

    /// One of the program's accounts.
    pub fn read<T: Record>(&self, at: Address) -> T {
        T::read(&self.data(at).expect("the account exists")).expect("the account is of this kind")
    }

    /// Chain time.
    pub fn now(&self) -> i64 {
        self.svm.get_sysvar::<Clock>().unix_timestamp
    }

    pub fn set_time(&mut self, unix: i64) {
        let mut clock = self.svm.get_sysvar::<Clock>();
        clock.unix_timestamp = unix;
        self.svm.set_sysvar(&clock);
    }

    pub fn wait(&mut self, seconds: i64) {
        self.set_time(self.now() + seconds);
    }

    fn transaction(&self, calls: &[&Call]) -> Transaction {
        self.signed(&self.message(calls), calls[0].name)
    }

    /// Bytes of some calls in one transaction, which need not fit.
    pub fn bytes(&self, calls: &[&Call]) -> usize {
        size(&self.unchecked(&self.message(calls)))
    }

    pub(crate) fn message(&self, calls: &[&Call]) -> Vec<Instruction> {
        let checks = calls.iter().flat_map(|call| &call.checks).map(|data| Instruction {
            program_id: Pubkey::from(ED25519_ID),
            accounts: vec![],
            data: data.clone(),
        });
        checks
            .chain(calls.iter().map(|call| {
                Instruction {
                    program_id: PROGRAM_ID.into(),
                    accounts: call
                        .metas
                        .iter()
                        .map(|meta| AccountMeta {
                            pubkey: meta.address.into(),
                            is_signer: meta.signer,
                            is_writable: meta.writable,
                        })
                        .collect(),
                    data: call.data.clone(),
                }
            }))
            .collect()
    }

    fn signed(&self, instructions: &[Instruction], name: &str) -> Transaction {
        let transaction = self.unchecked(instructions);
        let size = size(&transaction);
        assert!(size <= TRANSACTION_LEN_MAX, "a transaction of {size} bytes does not fit: {name}");
        self.largest.set(self.largest.get().max(size));
        transaction
    }

    fn unchecked(&self, instructions: &[Instruction]) -> Transaction {
        let message = Message::new(instructions, Some(&self.node.into()));
        let count = usize::from(message.header.num_required_signatures);
        let signers: Vec<&Keypair> = message.account_keys[..count]
            .iter()
            .map(|key| self.keys.get(&key.to_bytes()).expect("the key of every signer is known"))
            .collect();
        Transaction::new(&signers, message, self.svm.latest_blockhash())
    }

    /// Runs a call without keeping what it does.
    pub fn try_call(&self, call: &Call) -> Result<u64, Refusal> {
        match self.svm.simulate_transaction(self.transaction(&[call])) {
            Ok(done) => Ok(done.meta.compute_units_consumed),
            Err(failed) => Err(refusal(&failed.err)),
        }
    }

    /// Runs a call without keeping what it does: the accounts it would leave, or the runtime's error and the log.
    pub fn simulate(&self, call: &Call) -> Simulated {
        use solana_account::ReadableAccount as _;
        match self.svm.simulate_transaction(self.transaction(&[call])) {
            Ok(done) => {
                let accounts = done.post_accounts.into_iter();
                Ok(accounts.map(|(at, account)| (at.to_bytes(), account.data().to_vec())).collect())
            }
            Err(failed) => Err((format!("{:?}", failed.err), failed.meta.logs)),
        }
    }

    /// Sends some calls in one transaction.
    pub fn send_all(&mut self, calls: &[&Call]) -> Result<TransactionMetadata, Refusal> {
        let transaction = self.transaction(calls);
        let sent = self.svm.send_transaction(transaction);
        self.svm.expire_blockhash();
        sent.map_err(|failed| refusal(&failed.err))
    }

    /// Sends one call.
    pub fn send(&mut self, call: &Call) -> Result<u64, Refusal> {
        self.send_all(&[call]).map(|done| done.compute_units_consumed)
    }

    /// Sends one call that must go through.
    #[track_caller]
    pub fn must(&mut self, call: &Call) -> u64 {
        let transaction = self.transaction(&[call]);
        let sent = self.svm.send_transaction(transaction);
        self.svm.expire_blockhash();
        match sent {
            Ok(done) => done.compute_units_consumed,
            Err(failed) => panic!("{}: {:?}\n{}", call.name, refusal(&failed.err), failed.meta.logs.join("\n")),
        }
    }

    /// What a call that must fail leaves in the log.
    #[track_caller]
    pub fn logs_of_failure(&mut self, call: &Call) -> Vec<String> {
        let transaction = self.transaction(&[call]);
        match self.svm.send_transaction(transaction) {
            Ok(_) => panic!("{} went through", call.name),
            Err(failed) => failed.meta.logs,
        }
    }

    /// Sends one call that must go through within some compute units, more than a transaction has by default.
    #[track_caller]
    pub fn must_with_units(&mut self, call: &Call, units: u32) -> u64 {
        let mut message = self.message(&[call]);
        let limit = Instruction {
            program_id: Pubkey::from_str_const("ComputeBudget111111111111111111111111111111"),
            accounts: vec![],
            data: [&[2][..], &units.to_le_bytes()].concat(),
        };
        message.insert(0, limit);
        let transaction = self.signed(&message, call.name);
        let sent = self.svm.send_transaction(transaction);
        self.svm.expire_blockhash();
        match sent {
            Ok(done) => done.compute_units_consumed,
            Err(failed) => panic!("{}: {:?}\n{}", call.name, refusal(&failed.err), failed.meta.logs.join("\n")),
        }
    }

    /// Sends one call that must be refused for one reason, and changes nothing.
    #[track_caller]
    pub fn refused(&mut self, call: &Call, why: Error) {
        assert_eq!(self.send(call), Err(Refusal::Market(why)), "{}", call.name);
    }
}

pub(crate) fn refusal(error: &TransactionError) -> Refusal {
    match error {
        TransactionError::InstructionError(_, InstructionError::Custom(code)) => {
            Error::from_code(*code).map_or(Refusal::Runtime, Refusal::Market)
        }
        _ => Refusal::Runtime,
    }
}

/// Bytes of a transaction on the wire, counted by hand: litesvm takes any size.
fn size(transaction: &Transaction) -> usize {
    let compact = |len: usize| if len < 0x80 { 1 } else { 2 };
    let message = &transaction.message;
    let instructions: usize = message
        .instructions
        .iter()
        .map(|ix| 1 + compact(ix.accounts.len()) + ix.accounts.len() + compact(ix.data.len()) + ix.data.len())
        .sum();
    compact(transaction.signatures.len())
        + 64 * transaction.signatures.len()
        + 3
        + compact(message.account_keys.len())
        + 32 * message.account_keys.len()
        + 32
        + compact(message.instructions.len())
        + instructions
}

/// The system program's address, for tests that look at closed accounts.
pub const SYSTEM: Address = SYSTEM_PROGRAM_ID;
