//! Capacity challenges that a device answers wrong, and the calls that bring it to account.

use crate::{
    Call, Party, World,
    calls::config,
    stakes::{device_key, rules},
    world::{pda, sha256},
};
use atoll_interface::{
    Address, Hash, Hashes,
    capacity::{Keys, LEAF_ELEMENTS, LeafBytes, STATEMENT_LEN, Statement, element, leaf_hash, leaves},
    instruction as ix,
    layout::Config,
    merkle::{node, root_and_path},
    seeds,
    signature::INSTRUCTIONS_ID,
};

/// Side of the tests' matrices: one leaf a row.
const SIDE: u32 = 32;

/// What a device signed of one challenge, and what it committed to.
#[derive(Clone, Debug)]
pub struct Answer {
    pub statement: Statement,
    /// Leaf and path of each place that can be shown: those of the leaf with the place's row and column block.
    shown: Vec<(LeafBytes, Vec<Hash>)>,
}

impl Answer {
    /// The true product of side 32 but for some elements, by a device at the world's time.
    pub fn with_wrong(world: &World, device: Address, seed: u8, wrong: &[(u32, u32)]) -> Self {
        let keys = Keys::of(sha256, &[seed; 32], &device);
        let mut rows = vec![[0; 128]; SIDE as usize];
        for (row, leaf) in (0..SIDE).zip(&mut rows) {
            for (column, bytes) in (0..SIDE).zip(leaf.as_chunks_mut::<4>().0) {
                let right = element(sha256, &keys, SIDE, row, column);
                *bytes = (right + i32::from(wrong.contains(&(row, column)))).to_le_bytes();
            }
        }
        let hashes: Vec<Hash> = rows.iter().map(|leaf| leaf_hash(sha256, leaf)).collect();
        let mut root = [0; 32];
        let shown = rows.into_iter().enumerate().map(|(index, leaf)| {
            let mut path = [[0; 32]; 5];
            root = root_and_path(sha256, &mut hashes.clone(), index, &mut path).unwrap().0;
            (leaf, path.to_vec())
        });
        let shown = shown.collect();
        Self { statement: statement(world, device, seed, SIDE, root), shown }
    }

    /// One wrong element in the first leaf of a commitment of side `n`, whose other leaves nobody knows.
    pub fn of_side(world: &World, device: Address, n: u32) -> Self {
        let leaf = [0xff; 128];
        let path = vec![[7; 32]; leaves(n).trailing_zeros() as usize];
        let root = path.iter().fold(leaf_hash(sha256, &leaf), |hash, sibling| node(sha256, &hash, sibling));
        Self { statement: statement(world, device, 1, n, root), shown: vec![(leaf, path)] }
    }

    pub fn message(&self) -> [u8; STATEMENT_LEN] {
        self.statement.message()
    }

    /// Address of the case on it.
    pub fn case(&self) -> Address {
        pda(&seeds::fraud(&self.statement.device, &sha256(&[&self.message()])))
    }

    /// Shows one element; `other` is a case whose elements count with this one's, and who opened it.
    pub fn show(&self, (row, column): (u32, u32), other: Option<(&Self, Address)>) -> Call {
        let case = self.case();
        let (other, other_opener) = other.map_or((case, case), |(answer, opener)| (answer.case(), opener));
        let accounts = ix::AddFraudElementAccounts { case, other, other_opener, rules: rules() };
        let index = row * (self.statement.n / LEAF_ELEMENTS) + column / LEAF_ELEMENTS;
        let (leaf, path) = &self.shown[index as usize];
        let data = ix::AddFraudElement { row, column, leaf: *leaf, path: Hashes::new(path) };
        Call::new("add_fraud_element", &accounts.metas(), data.encode().unwrap())
    }
}

fn statement(world: &World, device: Address, seed: u8, n: u32, root: Hash) -> Statement {
    let network_root = world.read::<Config>(config()).network_root;
    Statement { network_root, device, seed: [seed; 32], n, root, at: world.now() }
}

impl Party {
    /// Opens a case on an answer; `lease` is the number of the one that holds the device.
    pub fn open_fraud(&self, world: &World, opener: Address, answer: &Answer, lease: Option<u16>) -> Call {
        let check = world.check(&answer.statement.device, &answer.message());
        Call { checks: vec![check], ..self.open_unsigned(opener, answer, lease) }
    }

    fn open_unsigned(&self, opener: Address, answer: &Answer, lease: Option<u16>) -> Call {
        let accounts = ix::OpenFraudAccounts {
            opener,
            case: answer.case(),
            device_key: device_key(answer.statement.device),
            page: self.page,
            first_page: self.page,
            lease: lease.map_or(self.page, |n| self.lease(n)),
            order: lease.map_or(self.page, |_| self.order()),
            config: config(),
            rules: rules(),
            instructions: INSTRUCTIONS_ID,
        };
        let data = ix::OpenFraud { check: 0, page_no: 0 };
        Call::new("open_fraud", &accounts.metas(), data.encode().unwrap())
    }

    /// Slashes for an answer; `refund` is the harmed renter's token account.
    pub fn execute_slash(&self, opener: Address, answer: &Answer, refund: Option<Address>) -> Call {
        let accounts = ix::ExecuteSlashAccounts {
            case: answer.case(),
            opener,
            device_key: device_key(answer.statement.device),
            page: self.page,
            first_page: self.page,
            vault: self.stake_vault(),
            mint: self.mint,
            bounty: sha256(&[b"purse", &opener]),
            refund: refund.unwrap_or(self.stake_vault()),
            rules: rules(),
        };
        Call::new("execute_slash", &accounts.metas(), ix::ExecuteSlash {}.encode().unwrap())
    }

    /// Opens a case on three wrong elements and proves it.
    pub fn prove_fraud(&self, world: &mut World, opener: Address, device: usize, lease: Option<u16>) -> Answer {
        let wrong = [(0, 0), (5, 6), (31, 31)];
        let answer = Answer::with_wrong(world, self.devices[device], 1, &wrong);
        world.must(&self.open_fraud(world, opener, &answer, lease));
        for place in wrong {
            world.must(&answer.show(place, None));
        }
        answer
    }
}
