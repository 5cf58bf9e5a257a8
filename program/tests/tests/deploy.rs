//! The program goes through the runtime's own loader, with the features of the main network: deployed, used, upgraded by whom
//! may, and then by nobody. And two limits of a real cluster: the growth of a page, and lookup tables.

use atoll_interface::{
    Error, instruction as ix,
    layout::{FleetPage, Lease, Record, SLOTS_MAX},
    settlement::Reason,
};
use atoll_market_tests::{
    Party, Refusal, World,
    calls::{CPU, DURATION_S, FEED, STAKE, config, fill_data, leaf},
    world::{START, TRANSACTION_LEN_MAX, program},
};
use std::fs;

/// The bytes under test.
fn bytes() -> Vec<u8> {
    fs::read(program()).expect("the program's bytes are there; else run `cargo xtask program build`")
}

/// A chain on which a key deployed the program just now.
fn deployed() -> (World, [u8; 32]) {
    let mut world = World::undeployed();
    let authority = world.key("deployer");
    let buffer = world.buffer(authority, &bytes());
    assert_eq!(world.deploy(authority, buffer, &bytes()), Ok(()));
    world.check_signatures();
    // A program runs from the slot after its deployment on.
    world.set_slot(10);
    (world, authority)
}

/// Makes the network, and walks an order to its end.
fn live(world: &mut World) -> Party {
    world.must(&world.init());
    world.must(&world.set_catalogue(CPU));
    world.must(&world.set_feed(FEED));
    world.purse(world.admin);
    world.must(&world.register_attestor());
    world.must(&world.set_rules());
    let party = Party::ready(world, "a", 1);
    world.must(&party.post(1));
    world.must(&party.fill(0, 0, &[1]));
    world.set_time(START + i64::from(DURATION_S) + 10);
    world.must(&party.release(party.node, 0, Reason::Expired, 0, &[1]));
    let until = world.now();
    let tree = world.attest(&[leaf(party.lease(0), 90, until)]);
    world.must(&tree.settle(0, party.order()));
    assert_eq!(world.read::<Lease>(party.lease(0)).device_seconds_paid, 90);
    world.must(&party.close_lease(0));
    world.must(&party.collect());
    world.must(&party.close_order(party.renter));
    assert_eq!(world.tokens_everywhere(), world.supply());
    party
}

#[test]
fn the_loader_takes_the_program_and_it_runs() {
    let (mut world, _) = deployed();
    live(&mut world);
}

#[test]
fn the_loader_refuses_what_is_no_program() {
    let whole = bytes();
    let mut torn = whole.clone();
    // Every part of the file's second half is another byte: code and tables.
    for byte in torn.iter_mut().skip(whole.len() / 2) {
        *byte ^= 0xff;
    }
    for broken in [&whole[..whole.len() / 2], &torn] {
        let mut world = World::undeployed();
        let authority = world.key("deployer");
        let buffer = world.buffer(authority, broken);
        assert_eq!(world.deploy(authority, buffer, broken), Err(Refusal::Runtime));
    }
}

#[test]
fn who_holds_the_authority_upgrades_and_then_nobody() {
    let (mut world, first) = deployed();
    let party = live(&mut world);
    let [second, stranger] = ["council", "stranger"].map(|name| world.key(name));
    for (slot, who) in [(20, stranger), (21, second)] {
        world.set_slot(slot);
        let buffer = world.buffer(who, &bytes());
        assert_eq!(world.upgrade_by(who, buffer), Err(Refusal::Runtime));
        assert_eq!(world.hand_over(who, Some(who)), Err(Refusal::Runtime));
    }
    assert_eq!(world.hand_over(first, Some(second)), Ok(()));
    world.set_slot(30);
    world.wait(1);
    let buffer = world.buffer(first, &bytes());
    assert_eq!(world.upgrade_by(first, buffer), Err(Refusal::Runtime), "it was handed over");
    let buffer = world.buffer(second, &bytes());
    assert_eq!(world.upgrade_by(second, buffer), Ok(()));
    world.set_slot(40);
    // What was written before the upgrade lives on.
    let next = Party { nonce: 2, ..party };
    world.must(&next.post(1));
    world.must(&next.fill(0, 0, &[1]));
    assert_eq!(world.hand_over(second, None), Ok(()));
    world.set_slot(50);
    world.wait(1);
    let buffer = world.buffer(second, &bytes());
    assert_eq!(world.upgrade_by(second, buffer), Err(Refusal::Runtime), "nobody upgrades any more");
    world.must(&next.release(next.renter, 0, Reason::Done, 0, &[1]));
}

/// Every registration grows the page by one slot, up to the last; the runtime lets an account grow by 10,240 bytes in an
/// instruction, a slot has 96.
#[test]
fn a_page_grows_by_registrations_to_its_last_slot() {
    let (mut world, _) = deployed();
    live(&mut world);
    let mut party = Party::new(&mut world, "b");
    party.devices = (0..=SLOTS_MAX).map(|n| world.poor_key(&format!("b/many{n}"))).collect();
    let mut most = 0;
    for n in 0..SLOTS_MAX {
        most = most.max(world.must(&party.register(n)));
    }
    world.refused(&party.register(SLOTS_MAX), Error::PageFull);
    assert_eq!(usize::from(world.read::<FleetPage>(party.page).slot_count), SLOTS_MAX);
    assert_eq!(world.data(party.page).expect("the page").len(), FleetPage::SIZE + 96 * SLOTS_MAX);
    assert!(most < 10_000, "{most} compute units for one registration");
}

/// Eight leaves of a tree of 2^16 need a path that does not fit beside nine addresses of 32 bytes; it does beside their places
/// in a table.
#[test]
fn a_lookup_table_makes_room_for_the_path_of_a_deep_tree() {
    let (mut world, _) = deployed();
    live(&mut world);
    let party = Party::new(&mut world, "b");
    let mut register = party.register(0);
    let eight = ix::RegisterWorker { devices: 8, ..ix::RegisterWorker::decode(&register.data[1..]).unwrap() };
    register.data = eight.encode().unwrap().as_slice().to_vec();
    world.must(&register);
    world.must(&party.stake(8 * STAKE));
    world.must(&party.post(8));
    for n in 0..8 {
        let fill = ix::FillOrder { mask: 1 << n, ..fill_data(0, &[1]) };
        world.must(&party.fill_as(party.node, n, &fill));
    }
    world.wait(50);
    let until = world.now();
    let mut leaves = vec![leaf([1; 32], 1, 1); 1 << 16];
    for n in 0..8u16 {
        leaves[usize::from(n)] = leaf(party.lease(n), 20, until);
    }
    let tree = world.attest(&leaves);
    let call = tree.settle_batch(0, 8, party.order());
    assert!(world.bytes(&[&call]) > TRANSACTION_LEN_MAX, "it fits without a table");
    let named: Vec<_> = (0..8).map(|n| party.lease(n)).chain([party.order(), config()]).collect();
    let bytes = world.send_with_table(&call, &named).expect("it goes through");
    assert!(bytes <= TRANSACTION_LEN_MAX, "{bytes} bytes");
    for n in 0..8 {
        assert_eq!(world.read::<Lease>(party.lease(n)).device_seconds_paid, 20);
    }
    // A place in the table is no way round the program's checks.
    let mut forged = call.clone();
    forged.metas[3].address = party.lease(1);
    assert!(world.send_with_table(&forged, &named).is_err());
}
