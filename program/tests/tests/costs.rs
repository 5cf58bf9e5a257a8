//! Compute units and bytes of every instruction, against a golden table.
//!
//! `ATOLL_BLESS=1` writes the table anew. A change shows up here first; the bars of `docs/decisions/0002-program-toolchain.md`
//! are asserted besides.

use atoll_interface::{
    ATL,
    capacity::SIDE_MAX,
    govern::{ACTION_CATALOGUE, ACTION_GOVERN, ACTION_RULES, ACTION_SEAT},
    instruction::{self as ix, TABLE},
    layout::{Dispute, VOTE_FOR},
    settlement::Reason,
};
use atoll_market_tests::{
    Call, Party, World,
    calls::{CPU, DURATION_S, HOLD_S, STAKE, STALL_S, fill_data, leaf},
    disputes,
    frauds::Answer,
    governs::{PROPOSAL_S, TIMELOCK_S, seat, token_of},
    pays::Hour,
    stakes::{EXIT_WAIT_S, UNBOND_S, rule_values},
    world::START,
};
use std::{collections::BTreeMap, fmt::Write, fs, path::Path};

struct Meter {
    world: World,
    units: BTreeMap<String, u64>,
}

impl Meter {
    fn measure(&mut self, what: &str, call: &Call) {
        let units = self.world.must(call);
        self.units.insert(format!("{} {what}", call.name).trim().to_owned(), units);
    }
}

fn measure() -> BTreeMap<String, u64> {
    let mut meter = Meter { world: World::bare(), units: BTreeMap::new() };
    let admin = meter.world.admin;
    meter.world.purse(admin);
    meter.measure("1 seat", &meter.world.init());
    meter.measure("", &meter.world.set_catalogue(CPU));
    meter.measure("", &meter.world.set_feed(250_000));
    meter.measure("", &meter.world.register_attestor());
    let mut party = Party::new(&mut meter.world, "a");
    meter.measure("first of a page", &party.register(0));
    meter.measure("", &party.register(1));
    meter.measure("first", &party.stake(STAKE));
    meter.measure("", &party.stake(STAKE));
    meter.measure("", &party.set_ask(party.supplier, 0, ix::ASK, 50_000));
    meter.measure("first", &party.set_budget(100 * ATL, 0, i64::MAX));
    meter.measure("", &party.set_budget(ATL, 0, i64::MAX));
    meter.measure("by wallet", &party.post(2));
    meter.measure("2 slots", &party.fill(0, 0, &[0b11]));
    meter.world.wait(20);
    meter.measure("", &party.extend_order(party.renter, 10, party.extension(&meter.world, 10)));
    meter.measure("2 slots", &party.extend_lease(0));
    meter.measure("1 slot", &party.release(party.node, 0, Reason::Lost, 1, &[1]));
    meter.world.set_time(START + i64::from(DURATION_S) + 20);
    meter.world.must(&party.release(party.renter, 0, Reason::Expired, 0, &[1]));
    let until = meter.world.now();
    let tree = atoll_market_tests::calls::Attested::over(meter.world.last_epoch(), &[leaf([1; 32], 1, 1); 1]);
    meter.measure("first vote", &meter.world.post_epoch(meter.world.attestor, tree.index, tree.root));
    let mut leaves = vec![leaf([1; 32], 1, 1); 1 << 14];
    leaves[5] = leaf(party.lease(0), 100, until);
    let tree = meter.world.attest(&leaves);
    meter.measure("depth 14", &tree.settle(5, party.order()));
    meter.measure("", &party.withdraw(0));
    meter.measure("", &party.collect());
    meter.measure("", &party.close_lease(0));
    meter.measure("", &party.close_order(party.renter));
    party.nonce = 2;
    meter.measure("by budget", &party.post_by_budget(&party.terms(1)));
    meter.measure("first", &meter.world.set_rules());
    meter.measure("", &meter.world.set_rules());
    meter.measure("", &party.delegate(party.session, i64::MAX));
    meter.measure("2 slots", &party.set_asks(party.session, 60_000, 0, &[0b11]));
    meter.measure("2 slots", &party.set_drain(party.session, 1, 0, &[0b11]));
    meter.measure("", &party.rotate(0, party.devices[0], party.devices[2]));
    meter.measure("", &party.offer(0, STAKE));
    meter.measure("", &party.accept(0, STAKE));
    meter.measure("ask", &party.exit(party.renter, 0));
    meter.world.wait(EXIT_WAIT_S);
    meter.measure("leave", &party.exit(party.renter, 0));
    meter.world.wait(UNBOND_S);
    meter.measure("pay", &party.exit_paid(party.renter, 0));
    meter.measure("", &party.retire(0, party.devices[2]));
    meter.world.must(&party.retire(1, party.devices[1]));
    meter.measure("", &party.unstake(2 * STAKE));
    meter.world.wait(UNBOND_S);
    meter.measure("", &party.unstake_withdraw());
    meter.measure("", &party.close_device_key(0, party.devices[1]));
    meter.measure("", &party.close_page());
    cosigned(&mut meter);
    rewards(&mut meter);
    fraud(&mut meter);
    batches(&mut meter);
    mixed(&mut meter);
    dispute(&mut meter);
    vesting(&mut meter);
    votes(&mut meter);
    spot(&mut meter);
    let votes = [(7, [1; 32]), (7, [2; 32])];
    meter.measure("", &meter.world.prove(meter.world.admin, meter.world.attestor, votes));
    meter.units
}

/// Leases of one order, one a device of one worker, settled 4 and 8 at once in a tree of 2^10 leaves.
fn batches(meter: &mut Meter) {
    let party = Party::new(&mut meter.world, "c");
    let mut register = party.register(0);
    let mut data = ix::RegisterWorker::decode(&register.data[1..]).unwrap();
    data.devices = 8;
    register.data = data.encode().unwrap().as_slice().to_vec();
    meter.world.must(&register);
    meter.world.must(&party.stake(8 * STAKE));
    meter.world.must(&party.post(8));
    for n in 0..8 {
        let fill = ix::FillOrder { mask: 1 << n, ..fill_data(0, &[1]) };
        meter.world.must(&party.fill_as(party.node, n, &fill));
    }
    meter.world.wait(50);
    for (count, seconds) in [(4, 10), (8, 20)] {
        let until = meter.world.now();
        let mut leaves = vec![leaf([1; 32], 1, 1); 1 << 10];
        for n in 0..8u16 {
            leaves[usize::from(n)] = leaf(party.lease(n), seconds, until);
        }
        let tree = meter.world.attest(&leaves);
        meter.measure(&format!("{count} of 2^10"), &tree.settle_batch(0, count, party.order()));
    }
}

/// Four leases of four orders settled at once, in a tree as deep as fits in a transaction.
fn mixed(meter: &mut Meter) {
    let parties = ["d", "e", "f", "g"].map(|name| Party::ready(&mut meter.world, name, 1));
    for party in &parties {
        meter.world.must(&party.post(1));
        meter.world.must(&party.fill(0, 0, &[1]));
    }
    meter.world.wait(50);
    let until = meter.world.now();
    let mut leaves = vec![leaf([1; 32], 1, 1); 1 << 13];
    for (place, party) in leaves.iter_mut().zip(&parties) {
        *place = leaf(party.lease(0), 10, until);
    }
    let tree = meter.world.attest(&leaves);
    meter.measure("4 of 2^13", &tree.settle_mixed(0, &parties.each_ref().map(Party::order)));
}

/// A spot order with its notice, and an extension by a budget's key.
fn spot(meter: &mut Meter) {
    let party = Party::ready(&mut meter.world, "i", 2);
    meter.measure("", &party.post_spot(1));
    meter.world.must(&party.fill(0, 0, &[1]));
    meter.measure("", &party.notice(0));
    let party = Party { nonce: 2, ..party };
    meter.world.must(&party.set_budget(100 * ATL, 0, i64::MAX));
    meter.world.must(&party.post_by_budget(&party.terms(1)));
    meter.world.must(&party.fill(0, 1, &[1]));
    meter.measure("", &party.extend_by_budget(30, party.extension(&meter.world, 30)));
}

/// A dispute with appeal, on a leaf of a tree of 2^14, judged by the one seat.
fn dispute(meter: &mut Meter) {
    let party = Party::ready(&mut meter.world, "h", 1);
    meter.world.must(&party.post(1));
    meter.world.must(&party.fill(0, 0, &[1]));
    meter.world.wait(50);
    let mut leaves = vec![leaf([1; 32], 1, 1); 1 << 14];
    leaves[5] = leaf(party.lease(0), 40, meter.world.now());
    let tree = meter.world.finalise(&leaves);
    meter.measure("depth 14", &tree.dispute(party.renter, &party, 5, 10));
    let at = disputes::dispute(party.lease(0), tree.index);
    meter.world.set_slot(meter.world.read::<Dispute>(at).draw_slot + 1);
    meter.measure("with the draw", &meter.world.vote_dispute(meter.world.attestor, at, ix::FOR_OPENER));
    meter.world.set_time(meter.world.read::<Dispute>(at).vote_until);
    meter.measure("", &meter.world.appeal(party.supplier, at));
    meter.measure("", &meter.world.vote_dispute(meter.world.attestor, at, ix::FOR_OPENER));
    meter.world.set_time(meter.world.read::<Dispute>(at).appeal_until);
    meter.measure("after an appeal", &party.close_dispute(&meter.world, at));
}

/// A lease of which the attestors say nothing.
fn cosigned(meter: &mut Meter) {
    let party = Party::ready(&mut meter.world, "x", 1);
    meter.world.must(&party.post(1));
    meter.world.must(&party.fill(0, 0, &[1]));
    meter.world.wait(i64::from(STALL_S));
    meter.measure("", &party.cosign(&meter.world, 0, 50, meter.world.now()));
}

/// A vote for an hour's root, and claims of two hours in trees of 2^14 leaves.
fn rewards(meter: &mut Meter) {
    let party = Party::ready(&mut meter.world, "y", 1);
    meter.world.fill_emission(ATL);
    for (what, sum) in [("first, depth 14", 1_000), ("depth 14", 2_000)] {
        let mut leaves = vec![([1; 32], 0); 1 << 14];
        leaves[5] = (party.page, sum);
        meter.world.wait(3_600);
        let hour = Hour::over(meter.world.last_hour(), &leaves);
        meter.measure("first vote", &meter.world.post_reward(meter.world.attestor, &hour));
        meter.world.wait(i64::from(HOLD_S));
        meter.measure(what, &party.claim(&hour, 5));
    }
}

/// A promise, what is due after its cliff, and the rest.
fn vesting(meter: &mut Meter) {
    let wallet = meter.world.key("beneficiary");
    let purse = token_of(&mut meter.world, "beneficiary", wallet);
    meter.measure("", &meter.world.grant(&meter.world.terms_for(wallet, 1_000_003)));
    for what in ["part", "rest"] {
        meter.world.wait(500);
        meter.measure(what, &meter.world.claim_vesting(wallet, 0, purse));
    }
}

/// A proposal's way, and what each action costs to execute.
fn votes(meter: &mut Meter) {
    let party = Party::weighty(&mut meter.world, "v");
    let guardian = meter.world.key("guardian");
    let rules = ix::SetRules { guardian, quorum_bps: 100, ..rule_values() };
    meter.world.must(&meter.world.set_rules_to(&rules));
    meter.measure("", &meter.world.pause(guardian, 1));
    let rules = rules.encode().unwrap();
    let row = ix::SetCatalogue { id: 2, tier: 1, flags: 0, memory_mib: 1, multiplier_milli: 1, name: [0; 32] };
    let row = row.encode().unwrap();
    let seat = seat(&mut meter.world, 1, 2, "v").encode().unwrap();
    let actions = [
        ("rules", ACTION_RULES, &rules.as_slice()[1..]),
        ("new model", ACTION_CATALOGUE, &row.as_slice()[1..]),
        ("new seat", ACTION_SEAT, seat.as_slice()),
        ("govern", ACTION_GOVERN, &[]),
    ];
    for (n, (what, action, payload)) in (0..).zip(actions) {
        meter.measure(what, &party.propose(n, action, payload, [7; 32]));
        meter.measure("for", &party.vote(n, VOTE_FOR));
        meter.world.wait(PROPOSAL_S);
        meter.measure("", &meter.world.queue(n));
        meter.measure("give back", &party.vote(n, 0));
        meter.world.wait(TIMELOCK_S);
        meter.measure(what, &meter.world.execute(n));
    }
}

/// A case as it is brought at the largest side, and one element at sides that a card takes.
fn fraud(meter: &mut Meter) {
    let party = Party::ready(&mut meter.world, "b", 1);
    meter.world.must(&party.post(1));
    meter.world.must(&party.fill(0, 0, &[1]));
    meter.world.wait(10);
    let accuser = meter.world.admin;
    for (n, what) in [(4_096, "n = 4096"), (SIDE_MAX, "n = 16384")] {
        let answer = Answer::of_side(&meter.world, party.devices[0], n);
        meter.measure(what, &party.open_fraud(&meter.world, accuser, &answer, Some(0)));
        let show = answer.show((0, 0), None);
        let units = meter.world.must_with_units(&show, 1_400_000);
        meter.units.insert(format!("{} {what}", show.name), units);
    }
    let answer = party.prove_fraud(&mut meter.world, accuser, 0, Some(0));
    meter.measure("", &party.execute_slash(accuser, &answer, Some(party.purse)));
}

#[test]
fn compute_units_are_those_of_the_table() {
    let units = measure();
    for (_, name, _) in TABLE {
        let snake: String = name.chars().fold(String::new(), |mut snake, letter| {
            if letter.is_uppercase() && !snake.is_empty() {
                snake.push('_');
            }
            snake.push(letter.to_ascii_lowercase());
            snake
        });
        assert!(units.keys().any(|key| key.starts_with(&snake)), "{snake} is not measured");
    }
    let mut table = String::from("instruction\tcompute units\n");
    for (name, units) in &units {
        writeln!(table, "{name}\t{units}").unwrap();
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("costs.tsv");
    if std::env::var_os("ATOLL_BLESS").is_some() {
        fs::write(&path, &table).unwrap();
    }
    assert_eq!(
        table,
        fs::read_to_string(&path).unwrap_or_default(),
        "run with ATOLL_BLESS=1 and look at the difference"
    );
    // Bars: what the layouts were chosen for.
    assert!(units["settle_lease depth 14"] <= 6_000);
    assert!(units["close_order"] <= 20_000);
    assert!(units["settle_batch 4 of 2^10"] <= 4 * 1_900 && units["settle_batch 8 of 2^10"] <= 8 * 1_500);
    assert!(units["claim_reward depth 14"] <= 8_000);
    assert!(units["open_fraud n = 4096"] <= 12_000 && units["add_fraud_element n = 4096"] <= 120_000);
}

/// A whole page of 1,024 slots fills in one transaction.
#[test]
fn a_full_page_fills_at_once() {
    let mut world = World::new();
    let party = Party::ready(&mut world, "a", 1);
    // The page as 1,024 registrations would leave it: the first slot over and over.
    let mut page = world.svm.get_account(&party.page.into()).unwrap();
    let slot = page.data[136..232].to_vec();
    page.data.truncate(136);
    for _ in 0..1024 {
        page.data.extend_from_slice(&slot);
    }
    page.data[6..8].copy_from_slice(&1024u16.to_le_bytes());
    page.lamports = world.svm.minimum_balance_for_rent_exemption(page.data.len());
    world.svm.set_account(party.page.into(), page).unwrap();
    world.must(&party.post(1024));
    let units = world.must_with_units(&party.fill(0, 0, &[0xff; 128]), 400_000);
    assert!(units <= 200 * 1024, "{units} for 1,024 slots");
    let per_slot = units / 1024;
    assert!(per_slot <= 200, "{per_slot}");
}
