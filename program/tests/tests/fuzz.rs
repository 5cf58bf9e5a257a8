//! Instructions with mutated bytes, and accounts with mutated bytes, against the real program: it never breaks, it spends
//! within its budget, and whatever goes through moves no token out of nothing.
//!
//! An order's whole life is walked. Before each step its call and its accounts are mutated, run without being kept, and
//! looked at; then the call itself goes through.

use atoll_fuzz::{Rng, mutate::mutated};
use atoll_interface::{
    ATL, Address, PROGRAM_ID, TOKEN_PROGRAM_ID,
    govern::{ACTION_CATALOGUE, ACTION_RULES, ACTION_SEAT, ACTION_TREASURY},
    instruction::{self as ix, FOR_LEAF, FOR_OPENER},
    layout::{Dispute, VOTE_FOR},
    settlement::Reason,
};
use atoll_market_tests::{
    Call, Party, World,
    calls::{CPU, DURATION_S, FEED, STAKE, leaf},
    disputes,
    frauds::Answer,
    governs::{PROPOSAL_S, TIMELOCK_S, proposal, seat, token_of},
    stakes::{EXIT_WAIT_S, UNBOND_S, rule_values},
    world::START,
};

/// Mutations of one step in an ordinary run: some 20 steps of 0.5 ms each.
const TRIES: u64 = 40;

/// What was mutated when it was not the call.
const ACCOUNT: &str = "an account mutated";

struct Walk {
    world: World,
    rng: Rng,
    tries: u64,
    data: Vec<Vec<u8>>,
    refused: u64,
    passed: u64,
}

impl Walk {
    fn step(&mut self, call: &Call) {
        self.data.push(call.data.clone());
        // Signatures leave less room in a transaction.
        let room = if call.checks.is_empty() { 500 } else { 200 };
        for _ in 0..self.tries {
            let mut changed = call.clone();
            changed.data = mutated(&mut self.rng, &self.data, &[], room);
            self.look(&changed, "its data mutated");
            self.with_account(call);
        }
        self.world.must(call);
    }

    /// Runs the call with one account of the program, or one token account, mutated.
    fn with_account(&mut self, call: &Call) {
        let at = call.metas[self.rng.below(call.metas.len())].address;
        let Some(account) = self.world.svm.get_account(&at.into()) else { return };
        let owner = account.owner.to_bytes();
        if account.executable || ![PROGRAM_ID, TOKEN_PROGRAM_ID].contains(&owner) {
            return;
        }
        let mut changed = account.clone();
        changed.data = mutated(&mut self.rng, std::slice::from_ref(&account.data), &[], account.data.len() + 64);
        self.world.svm.set_account(at.into(), changed).expect("an account can be set");
        self.outcome(call, ACCOUNT);
        self.world.svm.set_account(at.into(), account).expect("an account can be set back");
    }

    /// Whether it went through; the program itself never breaks.
    fn outcome(&mut self, call: &Call, what: &str) -> bool {
        let shown = || format!("{} with {what}: {}", call.name, call.data.escape_ascii());
        let ran = self.world.simulate(call);
        if let Err((error, logs)) = &ran {
            // A bump that the program did not write makes seeds of no address; the runtime refuses to sign with them.
            let seeds = logs.iter().any(|line| line.contains("Could not create program address with signer seeds"));
            let broke =
                ["ProgramFailedToComplete", "ComputationalBudgetExceeded", "AccessViolation", "UnbalancedInstruction"];
            let broken = broke.iter().any(|word| error.contains(word)) && !(seeds && what == ACCOUNT);
            assert!(!broken, "{}\n{error}\n{}", shown(), logs.join("\n"));
        }
        if ran.is_ok() {
            self.passed += 1
        } else {
            self.refused += 1
        }
        ran.is_ok()
    }

    /// As [`Walk::outcome`], and no token comes from nowhere.
    fn look(&mut self, call: &Call, what: &str) {
        if !self.outcome(call, what) {
            return;
        }
        let changed = self.world.simulate(call).unwrap_or_default();
        let token = |data: &[u8]| u64::from_le_bytes(data[64..72].try_into().expect("eight bytes"));
        let held =
            |data: Option<Vec<u8>>| data.filter(|data| data.len() == 165).map_or(0, |data| i128::from(token(&data)));
        let mut difference = 0;
        for (at, data) in changed {
            if at == self.world.mint {
                let supply =
                    |data: &[u8]| i128::from(u64::from_le_bytes(data[36..44].try_into().expect("eight bytes")));
                let before = self.world.data(at).expect("the mint is there");
                difference -= supply(&data) - supply(&before);
            } else {
                difference += held(Some(data)) - held(self.world.data(at));
            }
        }
        assert_eq!(difference, 0, "{} with {what}: tokens out of nothing: {}", call.name, call.data.escape_ascii());
    }
}

fn walk(seed: u64, tries: u64) -> (u64, u64) {
    let mut walk = Walk { world: World::bare(), rng: Rng::new(seed), tries, data: vec![], refused: 0, passed: 0 };
    walk.step(&walk.world.init());
    walk.step(&walk.world.set_catalogue(CPU));
    walk.step(&walk.world.set_feed(FEED));
    let owner: Address = walk.world.admin;
    walk.world.purse(owner);
    walk.step(&walk.world.register_attestor());
    walk.step(&walk.world.set_rules());
    walk.world.fill_emission(0);
    let a = Party::new(&mut walk.world, "a");
    walk.step(&a.register(0));
    walk.step(&a.register(1));
    walk.step(&a.stake(2 * STAKE));
    let until = START + 100_000;
    walk.step(&a.set_ask(a.supplier, 0, ix::ASK, 60_000));
    walk.step(&a.set_budget(50 * ATL, 0, until));
    walk.step(&a.post_by_budget(&a.terms(1)));
    walk.step(&a.close_order_to(a.session, a.budget_vault(), a.budget()));
    walk.step(&a.post(2));
    walk.step(&a.fill(0, 0, &[1]));
    walk.step(&a.fill(1, 1, &[1]));
    walk.world.wait(20);
    let added = a.extension(&walk.world, 30);
    walk.step(&a.extend_order(a.renter, 30, added));
    walk.step(&a.extend_lease(0));
    walk.step(&a.release(a.renter, 0, Reason::Done, 0, &[1]));
    walk.step(&a.release(a.devices[1], 1, Reason::Leave, 1, &[1]));
    walk.world.set_time(START + i64::from(DURATION_S) + 80);
    let until = walk.world.now();
    let tree = walk.world.attest(&[leaf(a.lease(0), 18, until), leaf(a.lease(1), 15, until)]);
    walk.step(&tree.settle(0, a.order()));
    walk.step(&a.withdraw(0));
    walk.step(&tree.settle(1, a.order()));
    walk.step(&a.collect());
    walk.step(&a.close_lease(0));
    walk.step(&a.close_lease(1));
    walk.step(&a.close_order(a.renter));
    leave(&mut walk, &a);
    accuse(&mut walk);
    spot(&mut walk);
    dispute(&mut walk);
    vest(&mut walk);
    govern(&mut walk);
    (walk.refused, walk.passed)
}

/// The steps of supply and stake.
fn leave(walk: &mut Walk, a: &Party) {
    walk.step(&a.delegate(a.session, START + 1_000_000));
    walk.step(&a.set_asks(a.session, 70_000, 0, &[0b11]));
    walk.step(&a.set_drain(a.session, 1, 0, &[0b11]));
    walk.step(&a.rotate(0, a.devices[0], a.devices[2]));
    walk.step(&a.offer(3, STAKE));
    walk.step(&a.accept(3, STAKE));
    walk.step(&a.exit(a.renter, 3));
    walk.world.wait(EXIT_WAIT_S);
    walk.step(&a.exit(a.renter, 3));
    walk.world.wait(UNBOND_S);
    walk.step(&a.exit_paid(a.renter, 3));
    walk.step(&a.retire(0, a.devices[2]));
    walk.step(&a.retire(1, a.devices[1]));
    walk.step(&a.unstake(2 * STAKE));
    walk.world.wait(UNBOND_S);
    walk.step(&a.unstake_withdraw());
    walk.step(&a.close_device_key(0, a.devices[1]));
    walk.step(&a.close_page());
}

/// The steps of a fraud, from two cases.
fn accuse(walk: &mut Walk) {
    let b = Party::ready(&mut walk.world, "b", 1);
    walk.world.must(&walk.world.set_feed(FEED));
    walk.world.must(&b.post(1));
    walk.world.must(&b.fill(0, 0, &[1]));
    walk.world.wait(10);
    let wrong = [(0, 0), (1, 1)];
    let answers = [1, 2].map(|seed| Answer::with_wrong(&walk.world, b.devices[0], seed, &wrong));
    let accuser = walk.world.admin;
    for answer in &answers {
        walk.step(&b.open_fraud(&walk.world, accuser, answer, Some(0)));
        walk.step(&answer.show(wrong[0], None));
    }
    walk.step(&answers[0].show(wrong[1], Some((&answers[1], accuser))));
    walk.step(&b.execute_slash(accuser, &answers[0], Some(b.purse)));
}

/// The steps of a spot order, and an extension by a budget's key.
fn spot(walk: &mut Walk) {
    let d = Party::ready(&mut walk.world, "d", 2);
    walk.world.must(&walk.world.set_feed(FEED));
    walk.step(&d.post_spot(1));
    walk.world.must(&d.fill(0, 0, &[1]));
    walk.step(&d.notice(0));
    let d = Party { nonce: 2, ..d };
    walk.world.must(&d.set_budget(50 * ATL, 0, i64::MAX));
    walk.world.must(&d.post_by_budget(&d.terms(1)));
    walk.world.must(&d.fill(0, 1, &[1]));
    walk.step(&d.extend_by_budget(30, d.extension(&walk.world, 30)));
}

/// The steps of a dispute with appeal, by the one seat; and that seat's own fault.
fn dispute(walk: &mut Walk) {
    let c = Party::ready(&mut walk.world, "c", 1);
    walk.world.must(&walk.world.set_feed(FEED));
    walk.world.must(&c.post(1));
    walk.world.must(&c.fill(0, 0, &[1]));
    walk.world.wait(50);
    let until = walk.world.now();
    let tree = walk.world.finalise(&[leaf(c.lease(0), 40, until)]);
    walk.step(&tree.dispute(c.renter, &c, 0, 10));
    let at = disputes::dispute(c.lease(0), tree.index);
    walk.world.set_slot(walk.world.read::<Dispute>(at).draw_slot + 1);
    let seat = walk.world.attestor;
    walk.step(&walk.world.vote_dispute(seat, at, FOR_LEAF));
    walk.world.set_time(walk.world.read::<Dispute>(at).vote_until);
    walk.step(&walk.world.appeal(c.renter, at));
    walk.step(&walk.world.vote_dispute(seat, at, FOR_OPENER));
    walk.world.set_time(walk.world.read::<Dispute>(at).appeal_until);
    walk.step(&c.close_dispute(&walk.world, at));
    walk.step(&walk.world.prove(walk.world.admin, seat, [(7, [1; 32]), (7, [2; 32])]));
}

/// The steps of a vesting.
fn vest(walk: &mut Walk) {
    let wallet = walk.world.key("beneficiary");
    let purse = token_of(&mut walk.world, "beneficiary", wallet);
    walk.step(&walk.world.grant(&walk.world.terms_for(wallet, 1_000_003)));
    for _ in 0..2 {
        walk.world.wait(500);
        walk.step(&walk.world.claim_vesting(wallet, 0, purse));
    }
}

/// Votes, each with another action: what a proposal carries is mutated with its account.
fn govern(walk: &mut Walk) {
    let c = Party::weighty(&mut walk.world, "v");
    let guardian = walk.world.key("guardian");
    let rules = ix::SetRules { guardian, quorum_bps: 100, ..rule_values() };
    walk.world.must(&walk.world.set_rules_to(&rules));
    let rules = rules.encode().expect("rules fit");
    let seat = seat(&mut walk.world, 1, 2, "v").encode().expect("a seat fits");
    let row = ix::SetCatalogue { id: 2, tier: 1, flags: 0, memory_mib: 1, multiplier_milli: 1, name: [0; 32] };
    let row = row.encode().expect("a row fits");
    let treasury = token_of(&mut walk.world, "treasury 2", guardian);
    let actions = [
        (ACTION_RULES, &rules.as_slice()[1..]),
        (ACTION_CATALOGUE, &row.as_slice()[1..]),
        (ACTION_SEAT, seat.as_slice()),
        (ACTION_TREASURY, &treasury[..]),
    ];
    for (n, (action, payload)) in (0..).zip(actions) {
        walk.step(&c.propose(n, action, payload, [7; 32]));
        walk.step(&c.vote(n, VOTE_FOR));
        walk.world.wait(PROPOSAL_S);
        walk.step(&walk.world.queue(n));
        walk.step(&c.vote(n, 0));
        walk.world.wait(TIMELOCK_S);
        let place = if action == ACTION_TREASURY { treasury } else { proposal(n) };
        walk.step(&walk.world.execute_with(n, place));
    }
    walk.step(&walk.world.pause(guardian, 1));
    walk.world.wait(1);
}

#[test]
fn mutated_instructions_and_accounts_break_nothing() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("ATOLL_FUZZ_SEED").unwrap_or_default();
    let tries = number("ATOLL_FUZZ_MS").map_or(TRIES, |ms| (ms / 25).max(TRIES));
    let (refused, passed) = walk(seed, tries);
    println!("program: seed {seed}, {tries} tries a step: {refused} refused, {passed} went through");
    assert!(refused > 20 * tries && passed > 0, "{refused} refused, {passed} went through");
}
