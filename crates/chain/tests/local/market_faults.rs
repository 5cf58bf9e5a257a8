//! What the program itself judges, over RPC, with the signatures that the runtime checks beside it.

use atoll_chain::market::capacity::{Keys, LEAF_ELEMENTS, LeafBytes, Statement, element, leaf_hash};
use atoll_chain::market::fault::{self, Held};
use atoll_chain::market::instruction::{self, Place, Renter};
use atoll_chain::market::layout::{ATTESTOR_SLASHED, CASE_PROVEN, DEVICE_SLASHED, SLOT_SLASHED};
use atoll_chain::market::stake::LOCAL_RULES;
use atoll_chain::market::{MarketError, address, data, leaving, merkle, network, sha256};
use atoll_chain::{Instruction, Keypair};
use atoll_interface::{ATL, Hashes};

use crate::market::{STAKE, World, fill, order_terms};
use crate::support::{key, run};

/// Side of the matrices: one leaf a row.
const SIDE: u32 = LEAF_ELEMENTS;

async fn ruled() -> World {
    let world = World::new().await;
    let rules = data::SetRules { bounty_max: ATL, ..LOCAL_RULES };
    run(&world.rpc, &[leaving::set_rules(world.admin.address(), &rules)], &world.admin, &[]).await;
    world
}

fn check(by: &Keypair, message: &[u8]) -> Instruction {
    fault::ed25519_check(by.address(), &by.sign(message), message).unwrap()
}

#[tokio::test]
async fn an_attestor_that_signed_two_roots_of_one_epoch_loses_its_stake() {
    let world = ruled().await;
    let root = world.market.config().await.unwrap().value.header.network_root;
    let key = world.attestor.address();
    let votes = [[1; 32], [2; 32]].map(|of| network::vote_message(&root, 9, &of));
    let bounty = world.purse(&world.renter);
    let prove = |votes: [&[u8]; 2]| {
        let judged = data::ProveEquivocation { first: 0, second: 1 };
        let judged = fault::prove_equivocation(world.renter.address(), key, world.mint, bounty, &judged);
        [check(&world.attestor, votes[0]), check(&world.attestor, votes[1]), judged]
    };
    let before = world.rpc.token_balance(&bounty).await.unwrap();
    let same = world.rpc.execute(&prove([&votes[0], &votes[0]]), &world.renter, &[], crate::support::DEADLINE).await;
    assert!(same.unwrap_err().to_string().contains("NotEquivocation"), "one vote twice proves nothing");
    run(&world.rpc, &prove([&votes[0], &votes[1]]), &world.renter, &[]).await;
    let attestor = world.market.attestor(&key).await.unwrap().unwrap().value;
    assert_eq!((attestor.stake, attestor.flags & ATTESTOR_SLASHED), (0, ATTESTOR_SLASHED));
    assert_eq!(world.rpc.token_balance(&bounty).await.unwrap(), before + ATL);
    world.conserved().await;
}

#[tokio::test]
async fn three_wrong_elements_take_a_devices_stake_and_refund_its_renter() {
    let world = ruled().await;
    let (supplier, device, opener) = (&world.suppliers[0], key(20), &world.suppliers[1]);
    world.worker(supplier, &device).await;
    let (renter, node, source) = (world.renter.address(), world.node.address(), world.purse(&world.renter));
    let terms = data::PostOrder { devices: 1, devices_min: 1, ..order_terms(node) };
    let post = instruction::post_order(Renter::Wallet(renter), renter, source, world.mint, &terms);
    run(&world.rpc, &[post], &world.renter, &[]).await;
    let place = Place { order: address::order(&renter, 1), supplier: supplier.address(), page_no: 0, n: 0 };
    world.node(&[fill(node, place, &[1])]).await;
    world.wait(50).await;

    // The true product but for three elements, in three rows and columns.
    let wrong = [(0, 0), (5, 6), (31, 31)];
    let keys = Keys::of(sha256, &[3; 32], &device.address().0);
    let mut rows: Vec<LeafBytes> = vec![[0; 128]; SIDE as usize];
    for (row, leaf) in (0..SIDE).zip(&mut rows) {
        for (column, bytes) in (0..SIDE).zip(leaf.as_chunks_mut::<4>().0) {
            let right = element(sha256, &keys, SIDE, row, column);
            *bytes = (right + i32::from(wrong.contains(&(row, column)))).to_le_bytes();
        }
    }
    let hashes: Vec<_> = rows.iter().map(|leaf| leaf_hash(sha256, leaf)).collect();
    let tree = |index: u32| {
        let mut path = vec![[0; 32]; 5];
        let root = merkle::root_and_path(sha256, &mut hashes.clone(), index as usize, &mut path).unwrap().0;
        (root, path)
    };
    let network_root = world.market.config().await.unwrap().value.header.network_root;
    let at = world.now().await;
    let statement = Statement { network_root, device: device.address().0, seed: [3; 32], n: SIDE, root: tree(0).0, at };
    let case = fault::case_of(&statement);
    let open = |by: &Keypair, held| {
        let opened = data::OpenFraud { check: 0, page_no: 0 };
        let opened = fault::open_fraud(opener.address(), supplier.address(), &statement, held, &opened);
        [check(by, &statement.message()), opened]
    };
    let held = Held { lease: place.lease(), order: place.order };
    let forged = world.rpc.execute(&open(opener, Some(held)), opener, &[], crate::support::DEADLINE).await;
    assert!(forged.unwrap_err().to_string().contains("StatementWrong"), "the device did not sign it");
    let unnamed = world.rpc.execute(&open(&device, None), opener, &[], crate::support::DEADLINE).await;
    assert!(unnamed.unwrap_err().to_string().contains("HarmedRenterMissing"));
    run(&world.rpc, &open(&device, Some(held)), opener, &[]).await;

    let show = |(row, column): (u32, u32)| {
        let path = tree(row).1;
        let shown = data::AddFraudElement { row, column, leaf: rows[row as usize], path: Hashes::new(&path) };
        fault::add_fraud_element(case, None, &shown).unwrap()
    };
    assert_eq!(world.refusal(show((1, 1)), &world.node).await, MarketError::ElementRight);
    for place in wrong {
        let limit = atoll_chain::spl::compute_unit_limit(1_000_000);
        world.node(&[limit, show(place)]).await;
    }
    let found = world.market.case(&case).await.unwrap().unwrap().value;
    assert_eq!((found.flags & CASE_PROVEN, found.stake, found.renter), (CASE_PROVEN, STAKE, renter.0));
    assert!(found.harm > 0);
    let purses = [source, world.purse(opener)];
    let before =
        [world.rpc.token_balance(&purses[0]).await.unwrap(), world.rpc.token_balance(&purses[1]).await.unwrap()];
    world.node(&[fault::execute_slash(case, &found, world.mint, purses[1], Some(source))]).await;
    assert_eq!(world.rpc.token_balance(&purses[0]).await.unwrap(), before[0] + found.harm);
    assert_eq!(world.rpc.token_balance(&purses[1]).await.unwrap(), before[1] + ATL);
    let page = world.market.page(&place.page()).await.unwrap().unwrap().value;
    assert_eq!((page.header.own, page.rows[0].flags & SLOT_SLASHED), (0, SLOT_SLASHED));
    let key = world.market.device(&device.address()).await.unwrap().unwrap().value;
    assert_eq!(key.flags & DEVICE_SLASHED, DEVICE_SLASHED);
    assert_eq!(world.market.case(&case).await.unwrap(), None);
    world.conserved().await;
}
