//! What a cluster does beside running the program: its upgradeable loader, and lookup tables.
//!
//! litesvm takes this code, and the list of features that are active on the main network, from the validator's crates.
//! [`World::bare`] only puts the program's bytes in their place; here they go through every check of a deployment.

use crate::{
    Call, World,
    world::{Refusal, refusal, sha256},
};
use atoll_interface::{Address, PROGRAM_ID, SYSTEM_PROGRAM_ID};
use litesvm::LiteSVM;
use solana_address::Address as Pubkey;
use solana_instruction::{AccountMeta, Instruction};
use solana_keypair::Keypair;
use solana_message::{AddressLookupTableAccount, Message, VersionedMessage, v0};
use solana_transaction::{Transaction, versioned::VersionedTransaction};

/// The upgradeable loader.
pub const LOADER: Pubkey = Pubkey::from_str_const("BPFLoaderUpgradeab1e11111111111111111111111");
const RENT: Pubkey = Pubkey::from_str_const("SysvarRent111111111111111111111111111111111");
const CLOCK: Pubkey = Pubkey::from_str_const("SysvarC1ock11111111111111111111111111111111");
const LOOKUP: Pubkey = Pubkey::from_str_const("AddressLookupTab1e1111111111111111111111111");
/// Bytes before a lookup table's addresses.
const TABLE_HEAD: usize = 56;
/// Bytes of the program in one transaction.
const CHUNK: usize = 1_000;
/// Bytes before a buffer's content: its state and authority.
const BUFFER_HEAD: usize = 37;
/// Bytes of the program's own account: its state, and where its bytes are.
const PROGRAM_LEN: usize = 36;

/// Numbers of the loader's instructions.
const INITIALISE: u32 = 0;
const WRITE: u32 = 1;
const DEPLOY: u32 = 2;
const UPGRADE: u32 = 3;
const SET_AUTHORITY: u32 = 4;

/// Where a deployed program's bytes are.
pub fn program_data() -> Pubkey {
    Pubkey::find_program_address(&[&PROGRAM_ID], &LOADER).0
}

fn call(tag: u32, fields: &[u8], accounts: Vec<AccountMeta>) -> Instruction {
    Instruction { program_id: LOADER, accounts, data: [&tag.to_le_bytes()[..], fields].concat() }
}

fn create(payer: Pubkey, at: Pubkey, lamports: u64, space: usize) -> Instruction {
    let space = u64::try_from(space).expect("bytes of an account");
    let data = [&[0; 4][..], &lamports.to_le_bytes(), &space.to_le_bytes(), LOADER.as_ref()].concat();
    let accounts = vec![AccountMeta::new(payer, true), AccountMeta::new(at, true)];
    Instruction { program_id: SYSTEM_PROGRAM_ID.into(), accounts, data }
}

impl World {
    /// A chain without the program. Nobody has a key for its local address, so that no signature is checked before it is
    /// deployed.
    pub fn undeployed() -> Self {
        Self::on(LiteSVM::new().with_sigverify(false))
    }

    /// Sends instructions of the loader, paid by the node; signed by every key that is known.
    fn load(&mut self, instructions: &[Instruction]) -> Result<(), Refusal> {
        let message = Message::new(instructions, Some(&self.node.into()));
        let count = usize::from(message.header.num_required_signatures);
        let known = message.account_keys[..count].iter().filter_map(|key| self.keypair(&key.to_bytes()));
        let signers: Vec<Keypair> = known.map(Keypair::insecure_clone).collect();
        let mut transaction = Transaction::new_unsigned(message);
        let signers: Vec<&Keypair> = signers.iter().collect();
        transaction.partial_sign(&signers, self.svm.latest_blockhash());
        let sent = self.svm.send_transaction(transaction);
        self.svm.expire_blockhash();
        sent.map(drop).map_err(|failed| refusal(&failed.err))
    }

    /// Writes bytes into a new buffer of an authority, in as many transactions as it takes.
    pub fn buffer(&mut self, authority: Address, program: &[u8]) -> Pubkey {
        let name = sha256(&[&authority, program, &self.now().to_le_bytes()]);
        let at: Pubkey = self.key(&format!("buffer {:02x?}", &name[..8])).into();
        self.svm.set_account(at, solana_account::Account::default()).expect("an account can be emptied");
        let space = BUFFER_HEAD + program.len();
        let lamports = self.svm.minimum_balance_for_rent_exemption(space);
        let owner = AccountMeta::new_readonly(authority.into(), false);
        let initialise = call(INITIALISE, &[], vec![AccountMeta::new(at, false), owner]);
        self.load(&[create(self.node.into(), at, lamports, space), initialise]).expect("a buffer is made");
        for (n, chunk) in program.chunks(CHUNK).enumerate() {
            let offset = u32::try_from(n * CHUNK).expect("a program is small");
            let len = u64::try_from(chunk.len()).expect("a chunk is small");
            let fields = [&offset.to_le_bytes()[..], &len.to_le_bytes(), chunk].concat();
            let accounts = vec![AccountMeta::new(at, false), AccountMeta::new_readonly(authority.into(), true)];
            self.load(&[call(WRITE, &fields, accounts)]).expect("a chunk is written");
        }
        at
    }

    /// Deploys a buffer's bytes at the market's address, with room for twice as many.
    pub fn deploy(&mut self, authority: Address, buffer: Pubkey, program: &[u8]) -> Result<(), Refusal> {
        let lamports = self.svm.minimum_balance_for_rent_exemption(PROGRAM_LEN);
        let room = u64::try_from(2 * program.len()).expect("a program is small");
        let at = Pubkey::from(PROGRAM_ID);
        let accounts = vec![
            AccountMeta::new(self.node.into(), true),
            AccountMeta::new(program_data(), false),
            AccountMeta::new(at, false),
            AccountMeta::new(buffer, false),
            AccountMeta::new_readonly(RENT, false),
            AccountMeta::new_readonly(CLOCK, false),
            AccountMeta::new_readonly(SYSTEM_PROGRAM_ID.into(), false),
            AccountMeta::new_readonly(authority.into(), true),
        ];
        let made = create(self.node.into(), at, lamports, PROGRAM_LEN);
        self.load(&[made, call(DEPLOY, &room.to_le_bytes(), accounts)])
    }

    /// Puts a buffer's bytes in the place of the deployed ones.
    pub fn upgrade_by(&mut self, authority: Address, buffer: Pubkey) -> Result<(), Refusal> {
        let accounts = vec![
            AccountMeta::new(program_data(), false),
            AccountMeta::new(PROGRAM_ID.into(), false),
            AccountMeta::new(buffer, false),
            AccountMeta::new(self.node.into(), false),
            AccountMeta::new_readonly(RENT, false),
            AccountMeta::new_readonly(CLOCK, false),
            AccountMeta::new_readonly(authority.into(), true),
        ];
        self.load(&[call(UPGRADE, &[], accounts)])
    }

    /// Hands the right to upgrade over; to nobody for ever.
    pub fn hand_over(&mut self, authority: Address, to: Option<Address>) -> Result<(), Refusal> {
        let to = to.map(|to| AccountMeta::new_readonly(to.into(), false));
        let accounts = [AccountMeta::new(program_data(), false), AccountMeta::new_readonly(authority.into(), true)];
        self.load(&[call(SET_AUTHORITY, &[], accounts.into_iter().chain(to).collect())])
    }

    /// Sends one call whose accounts are named by a lookup table that holds them, as far as they need not sign; returns the
    /// transaction's bytes.
    pub fn send_with_table(&mut self, call: &Call, addresses: &[Address]) -> Result<usize, Refusal> {
        let key = sha256(&[b"lookup table"]).into();
        // Its state, that it is not being closed, and since when its addresses count; nobody extends it.
        let mut data = [&1u32.to_le_bytes()[..], &u64::MAX.to_le_bytes(), &[0; TABLE_HEAD - 12]].concat();
        data.extend(addresses.iter().flatten());
        self.put(sha256(&[b"lookup table"]), LOOKUP.to_bytes(), data);
        let addresses = addresses.iter().map(|address| Pubkey::from(*address)).collect();
        let table = AddressLookupTableAccount { key, addresses };
        let (payer, instructions) = (self.node.into(), self.message(&[call]));
        let message = v0::Message::try_compile(&payer, &instructions, &[table], self.svm.latest_blockhash());
        let message = VersionedMessage::V0(message.expect("the call compiles"));
        let count = usize::from(message.header().num_required_signatures);
        let keys = message.static_account_keys()[..count].iter();
        let signers: Vec<&Keypair> =
            keys.map(|key| self.keypair(&key.to_bytes()).expect("the key of every signer is known")).collect();
        let bytes = 1 + 64 * count + message.serialize().len();
        let transaction = VersionedTransaction::try_new(message, &signers[..]).expect("all signers are there");
        let sent = self.svm.send_transaction(transaction);
        self.svm.expire_blockhash();
        sent.map(|_| bytes).map_err(|failed| refusal(&failed.err))
    }

    /// Checks signatures from here on, as a cluster does.
    pub fn check_signatures(&mut self) {
        self.svm = self.svm.clone().with_sigverify(true);
    }
}
