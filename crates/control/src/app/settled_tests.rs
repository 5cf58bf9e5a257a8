//! What an order's trail tells.

use super::*;
use atoll_chain::market::{data, instruction as build};
use atoll_chain::{Keypair, sign};
use atoll_domain::time::UnixMs;

use crate::app::jobs;
use crate::store::rows::Epoch;

const ORDER: Address = PublicKey([1; 32]);
const ROOT_AT: Address = PublicKey([40; 32]);

fn lease(n: u8) -> Address {
    PublicKey([100 + n; 32])
}

fn at(key: Address) -> atoll_chain::Address {
    atoll_chain::Address(key.0)
}

/// Five leaves, the last of them final.
fn epoch() -> Epoch {
    let leaf = |n: u8| EpochLeaf {
        lease: lease(n),
        device_seconds: 10 + u64::from(n),
        until: 1_010,
        flags: if n == 4 { FLAG_FINAL } else { 0 },
        slots_root: Digest([n; 32]),
    };
    let leaves: Vec<EpochLeaf> = (0..5).map(leaf).collect();
    Epoch { index: 7, root: leaves::root(&leaves), leaves, created: UnixMs(0) }
}

fn bytes(instructions: &[Sent]) -> Vec<u8> {
    let payer = Keypair::from_seed(&[1; 32]);
    sign(instructions, &payer, &[], &atoll_chain::Hash([0; 32])).unwrap().bytes().to_vec()
}

fn settle(n: u8) -> Sent {
    let (leaf_index, leaf, path) = leaves::find(&epoch(), &lease(n)).unwrap();
    let row = leaves::of_row(&leaf);
    let data = data::SettleLease {
        device_seconds: row.device_seconds,
        until: row.until,
        flags: row.flags,
        slots_root: row.slots_root,
        leaf_index,
        path: Hashes::new(&path),
    };
    build::settle_lease(at(ORDER), at(lease(n)), at(ROOT_AT), &data).unwrap()
}

#[test]
fn a_booked_leaf_is_read_with_the_root_that_it_stands_under() {
    let sent = bytes(&[settle(4), settle(1)]);
    let found = deeds(&sent, &ORDER);
    let [Deed::Booked(account, last), Deed::Booked(_, other)] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((*account, last.root, last.leaf_index), (ROOT_AT, epoch().root, 4));
    assert_eq!(last.leaf, epoch().leaves[4]);
    assert_eq!((&other.leaf, other.root), (&epoch().leaves[1], epoch().root));
    assert!(deeds(&sent, &PublicKey([2; 32])).is_empty(), "another order's");
    assert!(deeds(b"nothing", &ORDER).is_empty());
}

#[test]
fn leaves_that_were_booked_together_are_read_each_with_its_own_path() {
    let epoch = epoch();
    let rows: Vec<Leaf> = epoch.leaves.iter().map(leaves::of_row).collect();
    let said: Vec<_> = rows[..4].iter().map(data::said).collect();
    // The path of the node above the four: what is left of one leaf's path without its two lowest hashes.
    let (_, _, path) = leaves::find(&epoch, &lease(0)).unwrap();
    let batch = data::SettleBatch { first_leaf: 0, leaves: &said, path: Hashes::new(&path[2..]) };
    let mut sent = settle(0);
    sent.data = batch.encode().unwrap().as_slice().to_vec();
    let meta = |key: Address| atoll_chain::AccountMeta { address: at(key), signer: false, writable: true };
    sent.accounts = [ORDER, ROOT_AT, PublicKey([9; 32]), lease(0), lease(1), lease(2), lease(3)].map(meta).to_vec();
    let found = deeds(&bytes(&[sent]), &ORDER);
    assert_eq!(found.len(), 4);
    for (at, deed) in found.iter().enumerate() {
        let Deed::Booked(account, booked) = deed else { panic!("{deed:?}") };
        assert_eq!((*account, booked.root, booked.leaf_index as usize), (ROOT_AT, epoch.root, at));
        assert_eq!(booked.leaf, epoch.leaves[at]);
    }
}

#[test]
fn of_leaves_of_several_orders_only_the_own_are_read() {
    let epoch = epoch();
    let said: Vec<_> = epoch.leaves[2..4].iter().map(|row| data::said(&leaves::of_row(row))).collect();
    let (_, _, path) = leaves::find(&epoch, &lease(2)).unwrap();
    let batch = data::SettleMixed { first_leaf: 2, leaves: &said, path: Hashes::new(&path[1..]) };
    let mut sent = settle(0);
    sent.data = batch.encode().unwrap().as_slice().to_vec();
    let meta = |key: Address| atoll_chain::AccountMeta { address: at(key), signer: false, writable: true };
    let other = PublicKey([2; 32]);
    sent.accounts = [ROOT_AT, PublicKey([9; 32]), other, ORDER, lease(2), lease(3)].map(meta).to_vec();
    let found = deeds(&bytes(&[sent]), &ORDER);
    let [Deed::Booked(account, booked)] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((*account, booked.root, booked.leaf_index), (ROOT_AT, epoch.root, 3));
    assert_eq!(booked.leaf, epoch.leaves[3]);
}

#[test]
fn what_renter_and_worker_settled_by_themselves_is_seen_and_not_taken_for_a_leaf() {
    let agreed = |order: Address| {
        let mut sent = settle(0);
        sent.data = data::SettleCosigned { check: 0, slot: 3 }.encode().unwrap().as_slice().to_vec();
        let meta = |key: Address| atoll_chain::AccountMeta { address: at(key), signer: false, writable: true };
        sent.accounts = [PublicKey([9; 32]), order, lease(0), PublicKey([50; 32])].map(meta).to_vec();
        bytes(&[sent])
    };
    assert_eq!(deeds(&agreed(ORDER), &ORDER), [Deed::Agreed]);
    assert!(deeds(&agreed(PublicKey([2; 32])), &ORDER).is_empty(), "another order's");
}

fn record(n: u8) -> LeaseRecord {
    LeaseRecord {
        lease: lease(n),
        n: u16::from(n),
        page: PublicKey([50; 32]),
        page_no: 0,
        supplier: PublicKey([51; 32]),
        workers: Vec::new(),
        lost: false,
        refill: false,
        slots: vec![0],
        mask: 1,
        ask_uusd: 1,
        rate: 1,
        start: 1_000,
        end: 1_100,
        released_at: 0,
        device_seconds: 3,
        epoch: Some(2),
    }
}

#[test]
fn a_row_says_what_the_chain_did_and_not_what_was_remembered() {
    let terms = OrderTerms { feed_uusd_per_atl: 1, fee_bps: 0, escrow: 1_000, posted_at: 900, active_at: 1_000 };
    let mut now = jobs::first(UnixMs(0), String::new());
    (now.terms, now.leases) = (Some(terms), vec![record(0), record(1), record(4)]);
    let extension = ExtensionRecord {
        transaction: String::new(),
        signature: atoll_domain::key::Signature([7; 64]),
        seconds: 60,
        escrow: 600,
    };
    let booked = |n: u8| {
        let Some(Deed::Booked(_, booked)) = deeds(&bytes(&[settle(n)]), &ORDER).pop() else { panic!("no leaf") };
        (lease(n), BookedLeaf { epoch: 7, ..booked })
    };
    let all = BTreeMap::from([booked(1), booked(4)]);
    let did = [Deed::Lengthened(extension.clone()), Deed::WentAlong(lease(4))];
    told(&mut now, &did, &all, 100).unwrap();
    let paid: Vec<_> = now.leases.iter().map(|it| (it.device_seconds, it.epoch, it.end)).collect();
    assert_eq!(paid, [(0, None, 1_100), (11, Some(7), 1_100), (14, Some(7), 1_160)]);
    assert_eq!((now.extended_s, now.extensions.len()), (60, 1));
    // Once more is the same.
    told(&mut now, &did, &all, 100).unwrap();
    assert_eq!((now.extended_s, now.extensions.len(), now.leases[2].end), (60, 1, 1_160));
    now.leases.pop();
    assert!(told(&mut now, &did, &all, 100).is_err(), "a lease is missing, and with it what it was paid");
}
