//! Disputes on leaves: a set of several attestors, the chain's slot hashes, and the calls.

use crate::{
    Call, Party, World,
    calls::{Attested, CPU, EPOCH_S, FEED, config, epoch},
    stakes::rules,
    world::{pda, sha256},
};
use atoll_interface::{
    Address, Hash, Hashes, instruction as ix,
    layout::{Config, Dispute, Record as _},
    merkle::Leaf,
    seeds,
};

/// Seats of a seated world's attestor set.
pub const SEATS: u16 = 9;
/// Votes that make its roots final.
const THRESHOLD: u16 = 5;

/// The sysvar of slot hashes, `SysvarS1otHashes111111111111111111111111111`, and who owns sysvars.
const SLOT_HASHES: &str = "SysvarS1otHashes111111111111111111111111111";
const SYSVARS: &str = "Sysvar1111111111111111111111111111111111111";

fn address(text: &str) -> Address {
    solana_address::Address::from_str_const(text).to_bytes()
}

impl World {
    /// As [`World::new`], with [`SEATS`] attestors of as many owners.
    pub fn seated() -> Self {
        let mut world = Self::bare();
        let seats: Vec<[Address; 2]> = (0..SEATS).map(|seat| world.seat(seat)).collect();
        let set: Vec<[u8; 64]> = seats.iter().map(|seat| seat.concat().try_into().expect("64 bytes")).collect();
        world.must(&world.init_with(THRESHOLD, &set));
        world.must(&world.set_catalogue(CPU));
        world.must(&world.set_feed(FEED));
        for (number, [owner, key]) in (0u16..).zip(seats) {
            world.purse(owner);
            world.must(&world.register_seat(number, owner, key));
        }
        world.must(&world.set_rules());
        world.set_slot(1_000);
        world
    }

    /// Owner and key of a seat.
    pub fn seat(&mut self, seat: u16) -> [Address; 2] {
        [self.key(&format!("seat{seat}/owner")), self.key(&format!("seat{seat}/key"))]
    }

    /// Moves the chain to a slot; of the last 512 before it the hash is known, [`slot_hash`].
    pub fn set_slot(&mut self, slot: u64) {
        self.svm.warp_to_slot(slot);
        let known: Vec<u64> = (slot.saturating_sub(512)..slot).rev().collect();
        self.set_slot_hashes(&known);
    }

    /// The slots whose hashes the chain knows, the newest first.
    pub fn set_slot_hashes(&mut self, known: &[u64]) {
        let mut data = known.len().to_le_bytes().to_vec();
        for slot in known {
            data.extend_from_slice(&slot.to_le_bytes());
            data.extend_from_slice(&slot_hash(*slot));
        }
        data.resize(20_488, 0);
        self.put(address(SLOT_HASHES), address(SYSVARS), data);
    }

    /// Lets the running epoch end and makes a root over some leaves final: its hold begins.
    pub fn finalise(&mut self, leaves: &[Leaf]) -> Attested {
        self.wait(i64::from(EPOCH_S));
        let tree = Attested::over(self.last_epoch(), leaves);
        let threshold = self.read::<Config>(config()).threshold;
        for seat in 0..threshold {
            let key = if threshold == 1 { self.attestor } else { self.seat(seat)[1] };
            let vote = self.post_epoch(key, tree.index, tree.root);
            self.must(&vote);
        }
        tree
    }

    pub fn vote_dispute(&self, key: Address, dispute: Address, choice: u8) -> Call {
        let attestor = if choice == ix::DRAW { dispute } else { pda(&seeds::attestor(&key)) };
        let accounts = ix::VoteDisputeAccounts { key, attestor, dispute, config: config() };
        Call::new("vote_dispute", &accounts.metas(), ix::VoteDispute { choice }.encode().unwrap())
    }

    /// Anyone draws the panel: the node sends it.
    pub fn draw(&self, dispute: Address) -> Call {
        self.vote_dispute(self.node, dispute, ix::DRAW)
    }

    pub fn appeal(&self, appellant: Address, dispute: Address) -> Call {
        let accounts = ix::AppealAccounts {
            appellant,
            dispute,
            vault: pda(&seeds::dispute_vault(&dispute)),
            source: sha256(&[b"purse", &appellant]),
            config: config(),
        };
        Call::new("appeal", &accounts.metas(), ix::Appeal {}.encode().unwrap())
    }

    /// Seats of the panel that votes.
    pub fn panel(&self, dispute: Address) -> Vec<u16> {
        let panel = self.read::<Dispute>(dispute).panel;
        (0..SEATS).filter(|seat| panel[usize::from(seat / 8)] >> (seat % 8) & 1 == 1).collect()
    }
}

/// The tests' hash of a slot.
pub fn slot_hash(slot: u64) -> Hash {
    sha256(&[b"slot", &slot.to_le_bytes()])
}

/// Address of the dispute on a leaf.
pub fn dispute(lease: Address, index: u64) -> Address {
    pda(&seeds::dispute(&lease, &index.to_le_bytes()))
}

impl Attested {
    /// Opens a dispute on one of its leaves.
    pub fn dispute(&self, opener: Address, party: &Party, at: usize, ceiling: u64) -> Call {
        let (leaf, path) = (&self.leaves[at], self.path(at).1);
        let dispute = dispute(leaf.lease, self.index);
        let accounts = ix::OpenDisputeAccounts {
            opener,
            dispute,
            vault: pda(&seeds::dispute_vault(&dispute)),
            source: sha256(&[b"purse", &opener]),
            order: party.order(),
            lease: leaf.lease,
            page: party.page,
            epoch: epoch(self.index, &self.root),
            config: config(),
            rules: rules(),
            mint: party.mint,
        };
        let data = ix::OpenDispute {
            ceiling,
            device_seconds: leaf.device_seconds,
            until: leaf.until,
            flags: leaf.flags,
            slots_root: leaf.slots_root,
            leaf_index: u32::try_from(at).unwrap(),
            path: Hashes::new(&path),
        };
        Call::new("open_dispute", &accounts.metas(), data.encode().unwrap())
    }
}

impl Party {
    /// Closes a dispute over a lease of this party's order, as it stands: pays those whom the verdict pays.
    pub fn close_dispute(&self, world: &World, dispute: Address) -> Call {
        let data = world.data(dispute).expect("the dispute is open");
        let record = Dispute::read(&data).expect("a dispute");
        let vault = pda(&seeds::dispute_vault(&dispute));
        let bonds = record.bonds(world.tokens(vault)).expect("the vault holds the bonds");
        let place = |wallet: Address, amount: u64| if amount > 0 { sha256(&[b"purse", &wallet]) } else { vault };
        let accounts = ix::CloseDisputeAccounts {
            dispute,
            vault,
            order: self.order(),
            lease: record.lease,
            opener: record.opener,
            to_opener: place(record.opener, bonds.opener),
            to_appellant: place(record.appellant, bonds.appellant),
            to_supplier: place(record.supplier, bonds.supplier),
            mint: self.mint,
        };
        Call::new("close_dispute", &accounts.metas(), ix::CloseDispute {}.encode().unwrap())
    }
}
