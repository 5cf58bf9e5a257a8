//! Accounts that the first market.so wrote are read and served by today's.

use atoll_interface::{
    Error,
    layout::{FleetPage, LEASE_COUNTED, Lease, Order},
    settlement::Reason,
};
use atoll_market_tests::{
    Party, World,
    calls::{CPU, DURATION_S, FEED, STAKE, leaf},
    stakes::UNBOND_S,
    world::{START, program},
};
use std::path::Path;

#[test]
fn what_the_first_program_wrote_lives_on() {
    let mut world = World::with_program(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/market-v1.so"));
    world.must(&world.init());
    world.must(&world.set_catalogue(CPU));
    world.must(&world.set_feed(FEED));
    world.purse(world.admin);
    world.must(&world.register_attestor());
    let party = Party::ready(&mut world, "a", 2);
    world.must(&party.set_budget(STAKE, 0, i64::MAX));
    world.must(&party.post(2));
    world.must(&party.fill(0, 0, &[0b01]));

    world.upgrade(&program());
    world.must(&world.set_rules());
    world.must(&party.fill(1, 0, &[0b10]));
    let leases: [Lease; 2] = [world.read(party.lease(0)), world.read(party.lease(1))];
    assert_eq!(leases.map(|lease| lease.flags & LEASE_COUNTED), [0, LEASE_COUNTED]);
    assert_eq!(world.read::<FleetPage>(party.page).leases_open, 1);

    world.set_time(START + i64::from(DURATION_S));
    let tree = world.attest(&[leaf(party.lease(0), 99, START + 100), leaf(party.lease(1), 98, START + 100)]);
    for n in 0..2u16 {
        world.must(&party.release(party.node, n, Reason::Expired, n, &[1]));
        world.must(&tree.settle(usize::from(n), party.order()));
        world.must(&party.close_lease(n));
    }
    assert_eq!(world.read::<FleetPage>(party.page).leases_open, 0);
    world.must(&party.collect());
    assert_eq!(world.read::<Order>(party.order()).owed, 0);
    world.must(&party.close_order(party.renter));

    // Old workers leave by what they required when they came, their stake with them.
    world.must(&party.rotate(0, party.devices[0], party.devices[2]));
    world.must(&party.retire(0, party.devices[2]));
    world.must(&party.retire(1, party.devices[1]));
    assert_eq!(world.read::<FleetPage>(party.page).required, 0);
    world.must(&party.unstake(2 * STAKE));
    world.wait(UNBOND_S);
    world.must(&party.unstake_withdraw());
    world.must(&party.close_device_key(0, party.devices[1]));
    // An old page does not know how many of its leases are open, so it stays.
    world.refused(&party.close_page(), Error::PageInUse);
    assert_eq!(world.tokens_everywhere(), world.supply());
}
