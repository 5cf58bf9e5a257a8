//! Vestings: what is promised, when it is paid and to whom, and that there is never more than the cap.

use atoll_interface::{
    ATL, Error, emission,
    govern::ACTION_GOVERN,
    instruction as ix,
    layout::{Proposal, Rules, Vesting},
    vesting::{CAP, GENESIS},
};
use atoll_market_tests::{
    Party, World,
    governs::{proposal, token_of},
    sha256,
    stakes::rules,
    vestings::{lock, vesting},
    world::{PURSE, START},
};

/// A sum that no part of the time divides.
const TOTAL: u64 = 1_000_003;

/// A world, a beneficiary's wallet and its token account.
fn ready() -> (World, [u8; 32], [u8; 32]) {
    let mut world = World::new();
    let wallet = world.key("beneficiary");
    let purse = token_of(&mut world, "beneficiary", wallet);
    (world, wallet, purse)
}

#[test]
fn it_pays_nothing_before_the_cliff_and_all_of_it_at_the_end() {
    let (mut world, wallet, purse) = ready();
    let supply = world.supply();
    let terms = world.terms_for(wallet, TOTAL);
    world.must(&world.grant(&terms));
    let claim = world.claim_vesting(wallet, 0, purse);
    assert_eq!(world.tokens(lock(wallet, 0)), TOTAL);
    let held: Vesting = world.read(vesting(wallet, 0));
    assert_eq!((held.beneficiary, held.total, held.start, held.name), (wallet, TOTAL, START, terms.name));
    let mut paid = 0;
    for (second, due) in [(0, 0), (249, 0), (250, 250_000), (333, 333_000), (999, 999_002), (1_000, TOTAL)] {
        world.set_time(START + second);
        if due == paid {
            world.refused(&claim, Error::NothingToDo);
        } else {
            world.must(&claim);
        }
        paid = due;
        // Nothing of the same second is paid twice.
        world.refused(&claim, Error::NothingToDo);
        assert_eq!((world.tokens(purse), world.tokens(lock(wallet, 0))), (due, TOTAL - due), "at {second}");
        let books: Rules = world.read(rules());
        assert_eq!((books.vesting_total, books.vesting_held), (TOTAL, TOTAL - due));
    }
    world.set_time(i64::MAX / 2);
    world.refused(&claim, Error::NothingToDo);
    assert_eq!((world.supply(), world.tokens_everywhere()), (supply, supply));
}

#[test]
fn a_clock_that_goes_back_takes_nothing_and_gives_nothing() {
    let (mut world, wallet, purse) = ready();
    world.must(&world.grant(&world.terms_for(wallet, TOTAL)));
    let claim = world.claim_vesting(wallet, 0, purse);
    world.wait(500);
    world.must(&claim);
    for second in [499, 250, 0, -1_000_000] {
        world.set_time(START + second);
        world.refused(&claim, Error::NothingToDo);
    }
    world.set_time(START + 502);
    world.must(&claim);
    assert_eq!(world.tokens(purse), 502_001);
}

#[test]
fn it_pays_the_beneficiary_and_nobody_else() {
    let (mut world, wallet, purse) = ready();
    let other = world.key("other");
    let others = token_of(&mut world, "other", other);
    world.must(&world.grant(&world.terms_for(wallet, TOTAL)));
    world.must(&world.grant(&world.terms_for(other, 7 * TOTAL)));
    world.wait(1_000);
    let good = world.claim_vesting(wallet, 0, purse);
    for destination in [others, lock(wallet, 0), lock(other, 0), world.treasury, sha256(&[b"purse", &world.admin])] {
        world.refused(&world.claim_vesting(wallet, 0, destination), Error::TokenAccountWrong);
    }
    // Another's vault, and a token account of the vesting's address that is not its vault.
    let false_vault = token_of(&mut world, "false vault", vesting(wallet, 0));
    for vault in [lock(other, 0), false_vault] {
        let mut call = good.clone();
        call.metas[1].address = vault;
        world.refused(&call, Error::AddressWrong);
    }
    world.must(&good);
    assert_eq!((world.tokens(purse), world.tokens(others)), (TOTAL, 0));
}

#[test]
fn who_promises_is_the_admin_until_votes_decide() {
    let (mut world, wallet, purse) = ready();
    let terms = world.terms_for(wallet, TOTAL);
    world.must(&world.grant(&terms));
    // A promise is neither changed nor taken back; another number is another promise.
    world.refused(&world.grant(&terms), Error::AlreadyInitialised);
    world.must(&world.grant(&ix::GrantVesting { n: 1, ..terms }));
    let stranger = world.key("stranger");
    let strangers = token_of(&mut world, "stranger", stranger);
    let mut forged = world.grant(&ix::GrantVesting { n: 2, ..terms });
    forged.metas[0].address = stranger;
    forged.metas[3].address = strangers;
    world.refused(&forged, Error::NotAuthorised);
    let party = Party::weighty(&mut world, "a");
    let n = world.accept(&party, ACTION_GOVERN, &[]);
    world.must(&world.execute(n));
    world.refused(&world.grant(&ix::GrantVesting { n: 2, ..terms }), Error::NotAuthorised);
    // What was promised before is paid.
    world.set_time(START + 1_000);
    world.must(&world.claim_vesting(wallet, 1, purse));
    assert_eq!(world.tokens(purse), TOTAL);
}

#[test]
fn what_is_out_of_range_or_not_there_is_not_promised() {
    let (mut world, wallet, _) = ready();
    let good = world.terms_for(wallet, TOTAL);
    for (terms, why) in [
        (ix::GrantVesting { total: 0, ..good }, Error::NothingToDo),
        (ix::GrantVesting { beneficiary: [0; 32], ..good }, Error::ParameterOutOfRange),
        (ix::GrantVesting { duration_s: 0, cliff_s: 0, ..good }, Error::ParameterOutOfRange),
        (ix::GrantVesting { cliff_s: 1_001, ..good }, Error::ParameterOutOfRange),
        (ix::GrantVesting { start: i64::MAX, ..good }, Error::ParameterOutOfRange),
        (ix::GrantVesting { duration_s: u64::MAX, ..good }, Error::ParameterOutOfRange),
        (ix::GrantVesting { total: u64::MAX, ..good }, Error::AboveSupplyCap),
        (ix::GrantVesting { total: PURSE, ..good }, Error::FundsShort),
    ] {
        world.refused(&world.grant(&terms), why);
    }
    // The tokens of another, the rewards of another, another mint.
    let other = world.key("other");
    let others = world.purse(other);
    let good = world.grant(&good);
    for (index, address, why) in [
        (3, others, Error::TokenAccountWrong),
        (4, others, Error::TokenAccountWrong),
        (4, rules(), Error::TokenAccountWrong),
        (5, world.treasury, Error::AddressWrong),
        (2, lock(other, 0), Error::AddressWrong),
    ] {
        let mut call = good.clone();
        call.metas[index].address = address;
        world.refused(&call, why);
    }
    assert_eq!(world.read::<Rules>(rules()).vesting_total, 0);
    world.must(&good);
}

/// A genesis: everything circulates or waits as `rewards`, and `more` base units were minted than the 500,000,000 ATL beside
/// them. Returns the admin's account of what it may promise.
fn genesis(world: &mut World, rewards: u64, more: u64) -> [u8; 32] {
    let admin = world.admin;
    world.fill_emission(rewards);
    let rest = GENESIS - (world.supply() - rewards);
    let source = token_of(world, "genesis", admin);
    world.token(source, admin, rest + more);
    assert_eq!(world.supply(), GENESIS + rewards + more);
    source
}

#[test]
fn there_is_never_more_than_the_cap() {
    for (rewards, more, above) in [
        (emission::TOTAL, 0, false),
        (emission::TOTAL, 1, true),
        // What is not minted yet of the rewards will be.
        (emission::TOTAL - 1, 0, false),
        (emission::TOTAL - 1, 1, true),
        (0, 0, false),
        (0, 1, true),
        (emission::TOTAL + 1, 0, true),
    ] {
        let (mut world, wallet, purse) = ready();
        let source = genesis(&mut world, rewards, more);
        let terms = world.terms_for(wallet, world.tokens(source) - more);
        let mut call = world.grant(&terms);
        call.metas[3].address = source;
        if above {
            world.refused(&call, Error::AboveSupplyCap);
            continue;
        }
        world.must(&call);
        world.wait(1_000);
        world.must(&world.claim_vesting(wallet, 0, purse));
        assert_eq!((world.tokens(purse), world.supply()), (terms.total, GENESIS + rewards));
        assert!(world.supply() <= CAP);
    }
}

#[test]
fn what_was_paid_is_promised_anew_only_within_the_genesis() {
    let (mut world, ..) = ready();
    let (admin, source) = (world.admin, genesis(&mut world, emission::TOTAL, 0));
    let promise = |world: &World, n, total| {
        let terms = ix::GrantVesting { n, cliff_s: 0, duration_s: 1, ..world.terms_for(admin, total) };
        let mut call = world.grant(&terms);
        call.metas[3].address = source;
        call
    };
    let first = world.tokens(source);
    world.must(&promise(&world, 0, first));
    world.wait(1);
    world.must(&world.claim_vesting(admin, 0, source));
    world.refused(&promise(&world, 1, GENESIS - first + 1), Error::AboveSupplyCap);
    world.must(&promise(&world, 1, GENESIS - first));
    world.refused(&promise(&world, 2, 1), Error::AboveSupplyCap);
    assert_eq!(world.read::<Rules>(rules()).vesting_total, GENESIS);
}

#[test]
fn neither_what_is_locked_nor_what_waits_as_rewards_counts_for_the_quorum() {
    let (mut world, wallet, purse) = ready();
    let party = Party::weighty(&mut world, "a");
    let quorum = |world: &mut World| {
        let n = world.read::<Rules>(rules()).proposals;
        world.must(&party.propose(n, ACTION_GOVERN, &[], [0; 32]));
        world.read::<Proposal>(proposal(n)).quorum
    };
    let before = quorum(&mut world);
    assert_eq!(before, world.supply() / 5);
    world.fill_emission(emission::TOTAL);
    assert_eq!(quorum(&mut world), before, "rewards that nobody claimed");
    world.must(&world.grant(&world.terms_for(wallet, 1_000 * ATL)));
    assert_eq!(quorum(&mut world), before - 200 * ATL);
    world.wait(500);
    world.must(&world.claim_vesting(wallet, 0, purse));
    assert_eq!(quorum(&mut world), before - 100 * ATL);
    // Only what belongs to the rules' address waits as rewards.
    let n = world.read::<Rules>(rules()).proposals;
    let mut call = party.propose(n, ACTION_GOVERN, &[], [0; 32]);
    call.metas[4].address = party.purse;
    world.refused(&call, Error::TokenAccountWrong);
}
