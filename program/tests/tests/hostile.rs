//! Every instruction with each signer missing, each account swapped for another party's, and each account put twice.
//!
//! Two parties walk the same script side by side. Before each step of the first party every mutation of its call is run
//! without being kept, and must be refused; then the call itself must go through.

use atoll_interface::{
    ATL, Address, Error, SYSTEM_PROGRAM_ID, TOKEN_PROGRAM_ID,
    govern::{ACTION_CATALOGUE, ACTION_TREASURY},
    instruction::{self as ix, TABLE},
    layout::{Dispute, VOTE_AGAINST, VOTE_FOR},
    settlement::Reason,
};
use atoll_market_tests::{
    Call, Party, Refusal, World,
    calls::{DURATION_S, HOLD_S, STAKE, STALL_S, leaf},
    disputes::dispute,
    frauds::Answer,
    governs::{PROPOSAL_S, TIMELOCK_S, proposal, token_of},
    pays::Hour,
    sha256,
    stakes::{EXIT_WAIT_S, UNBOND_S},
    world::START,
};
use std::collections::BTreeSet;

/// (instruction, account) pairs that another party may legitimately be: who pays, who asks when anyone may, and where a
/// wallet's own money comes from. Each is a right, not a hole.
const FREE: &[(&str, usize)] = &[
    // The rent payer, and the sender where anyone may send.
    ("post_order", 1),
    ("fill_order", 1),
    ("post_epoch", 1),
    ("close_order", 0),
    // Once its time has come, anyone may take the next step of an exit.
    ("costake_exit", 0),
    // Whoever accuses.
    ("open_fraud", 0),
    ("post_reward", 1),
    ("claim_reward", 0),
    // Who pays for what a vote decided.
    ("execute", 0),
    ("post_order_spot", 1),
];

struct Script {
    world: World,
    covered: BTreeSet<&'static str>,
    tried: usize,
    /// The first party's order and budget.
    owners: [Address; 2],
}

impl Script {
    /// Tries every mutation of `call`, then sends both calls.
    fn step(&mut self, call: &Call, other: &Call) {
        self.alone(call, other);
        self.world.must(other);
    }

    /// Tries every mutation of `call`, then sends it alone: where anyone may call for whom the other account stands.
    fn alone(&mut self, call: &Call, other: &Call) {
        assert_eq!(call.name, other.name);
        self.world.try_call(call).unwrap_or_else(|refusal| panic!("{}: {refusal:?}", call.name));
        for index in 0..call.metas.len() {
            self.without_signature(call, index);
            self.not_writable(call, index);
            self.swapped(call, other, index);
            self.doubled(call, index);
        }
        self.too_short(call);
        self.covered.insert(call.name);
        self.world.must(call);
    }

    fn refused(&mut self, call: &Call, what: &str) -> Refusal {
        self.tried += 1;
        match self.world.try_call(call) {
            Ok(_) => panic!("{}: went through with {what}", call.name),
            Err(refusal) => refusal,
        }
    }

    fn without_signature(&mut self, call: &Call, index: usize) {
        // The fee payer signs in any case.
        if !call.metas[index].signer || call.metas[index].address == self.world.node {
            return;
        }
        let mut call = call.clone();
        call.metas[index].signer = false;
        let refusal = self.refused(&call, &format!("account {index} not signing"));
        assert_eq!(refusal, Refusal::Market(Error::SignerMissing), "{} {index}", call.name);
    }

    fn not_writable(&mut self, call: &Call, index: usize) {
        let meta = call.metas[index];
        let twice = call.metas.iter().filter(|other| other.address == meta.address).count() > 1;
        if !meta.writable || twice || meta.address == self.world.node {
            return;
        }
        let mut call = call.clone();
        call.metas[index].writable = false;
        let refusal = self.refused(&call, &format!("account {index} not writable"));
        assert_eq!(refusal, Refusal::Market(Error::NotWritable), "{} {index}", call.name);
    }

    fn swapped(&mut self, call: &Call, other: &Call, index: usize) {
        if [SYSTEM_PROGRAM_ID, TOKEN_PROGRAM_ID].contains(&call.metas[index].address) {
            return;
        }
        let stranger = self.world.key("stranger");
        let fake_token = sha256(&[b"fake token"]);
        self.world.token(fake_token, stranger, ATL);
        // A token account that belongs to the order, or to the budget, and is not its vault.
        let false_vaults = [sha256(&[b"of the order"]), sha256(&[b"of the budget"])];
        for (at, owner) in false_vaults.into_iter().zip(self.owners) {
            self.world.token(at, owner, 1_000 * ATL);
        }
        let [of_order, of_budget] = false_vaults;
        // The same bytes, but another program's.
        let forged = sha256(&[b"forged"]);
        let bytes = self.world.data(call.metas[index].address).unwrap_or_default();
        self.world.put(forged, sha256(&[b"another program"]), bytes);
        let other = other.metas[index].address;
        let candidates = [other, stranger, fake_token, sha256(&[b"nowhere"]), of_order, of_budget, forged];
        for (which, address) in candidates.into_iter().enumerate() {
            let mut call = call.clone();
            if call.metas[index].address == address || FREE.contains(&(call.name, index)) {
                continue;
            }
            if call.metas[index].signer && which > 1 {
                continue;
            }
            call.metas[index].address = address;
            self.refused(&call, &format!("account {index} swapped ({which})"));
        }
    }

    fn doubled(&mut self, call: &Call, index: usize) {
        for from in 0..call.metas.len() {
            let (own, copy) = (call.metas[index], call.metas[from]);
            let programs = [SYSTEM_PROGRAM_ID, TOKEN_PROGRAM_ID];
            if own.address == copy.address || programs.contains(&own.address) || FREE.contains(&(call.name, index)) {
                continue;
            }
            if own.signer && !copy.signer {
                continue;
            }
            let mut call = call.clone();
            call.metas[index].address = copy.address;
            self.refused(&call, &format!("account {index} the same as {from}"));
        }
    }

    fn too_short(&mut self, call: &Call) {
        let mut shorter = call.clone();
        if shorter.data.len() > 1 {
            shorter.data.pop();
            let refusal = self.refused(&shorter, "its data cut");
            assert_eq!(refusal, Refusal::Market(Error::InstructionMalformed));
        }
        let mut longer = call.clone();
        longer.data.push(0);
        let refusal = self.refused(&longer, "a byte behind its data");
        assert_eq!(refusal, Refusal::Market(Error::InstructionMalformed));
        let mut fewer = call.clone();
        fewer.metas.pop();
        let refusal = self.refused(&fewer, "an account missing");
        assert_eq!(refusal, Refusal::Market(Error::AccountsMissing));
    }
}

#[test]
fn no_signer_no_account_no_byte_can_be_another() {
    let mut world = World::new();
    let (a, b) = (Party::new(&mut world, "a"), Party::new(&mut world, "b"));
    let owners = [a.order(), a.budget()];
    let mut script = Script { world, covered: BTreeSet::new(), tried: 0, owners };
    script.step(&a.register(0), &b.register(0));
    script.step(&a.register(1), &b.register(1));
    script.step(&a.stake(STAKE), &b.stake(STAKE));
    script.step(&a.stake(STAKE), &b.stake(STAKE));
    script.step(&a.set_ask(a.supplier, 0, ix::ASK, 60_000), &b.set_ask(b.supplier, 0, ix::ASK, 60_000));
    let until = START + 100_000;
    script.step(&a.set_budget(50 * ATL, 0, until), &b.set_budget(50 * ATL, 0, until));
    script.step(&a.set_budget(0, ATL, until), &b.set_budget(0, ATL, until));
    script.step(&a.post_by_budget(&a.terms(1)), &b.post_by_budget(&b.terms(1)));
    script.step(
        &a.close_order_to(a.session, a.budget_vault(), a.budget()),
        &b.close_order_to(b.session, b.budget_vault(), b.budget()),
    );
    script.step(&a.post(2), &b.post(2));
    script.step(&a.fill(0, 0, &[1]), &b.fill(0, 0, &[1]));
    script.step(&a.fill(1, 1, &[1]), &b.fill(1, 1, &[1]));
    script.world.wait(20);
    let added = [&a, &b].map(|party| party.extension(&script.world, 30));
    script.step(&a.extend_order(a.renter, 30, added[0]), &b.extend_order(b.renter, 30, added[1]));
    script.step(&a.extend_lease(0), &b.extend_lease(0));
    let release = |party: &Party| party.release(party.renter, 0, Reason::Done, 0, &[1]);
    script.step(&release(&a), &release(&b));
    let release = |party: &Party| party.release(party.devices[1], 1, Reason::Leave, 1, &[1]);
    script.step(&release(&a), &release(&b));
    script.world.set_time(START + i64::from(DURATION_S) + 80);
    let until = script.world.now();
    let leaves = [&a, &b].map(|party| leaf(party.lease(0), 18, until));
    let tree = script.world.attest(&leaves);
    script.step(&tree.settle(0, a.order()), &tree.settle(1, b.order()));
    script.step(&a.withdraw(0), &b.withdraw(0));
    script.step(&a.collect(), &b.collect());
    // Nothing is owed any more, so the destination stands idle: lease 1 closes with its pay still to be moved.
    script.world.must(&a.close_lease(0));
    script.world.must(&b.close_lease(0));
    let leaves = [&a, &b].map(|party| leaf(party.lease(1), 15, until));
    let tree = script.world.attest(&leaves);
    script.world.must(&tree.settle(0, a.order()));
    script.world.must(&tree.settle(1, b.order()));
    script.step(&a.close_lease(1), &b.close_lease(1));
    script.world.must(&a.collect());
    script.world.must(&b.collect());
    script.step(&a.close_order(a.renter), &b.close_order(b.renter));

    // Those of the network and of fraud here below, the proof in `faults`, many leases in `batch`.
    let network = ["init", "set_catalogue", "set_feed", "register_attestor", "post_epoch", "set_rules"];
    let many = ["prove_equivocation", "settle_batch", "settle_mixed"];
    let elsewhere = [&network[..], &FRAUD, &DISPUTE, &SILENT, &REWARD, &GOVERN, &SPOT, &VESTING, &many].concat();
    leave(&mut script, &a, &b);
    assert_eq!(script.covered.len() + elsewhere.len(), TABLE.len(), "{:?}", script.covered);
    assert!(script.tried > 1_000, "only {} mutations were tried", script.tried);
}

/// The steps of supply and stake, to the last account.
fn leave(script: &mut Script, a: &Party, b: &Party) {
    let until = script.world.now() + 100_000;
    script.step(&a.delegate(a.session, until), &b.delegate(b.session, until));
    script.step(&a.set_asks(a.session, 70_000, 0, &[0b11]), &b.set_asks(b.session, 70_000, 0, &[0b11]));
    script.step(&a.set_asks(a.supplier, 80_000, 0, &[1]), &b.set_asks(b.supplier, 80_000, 0, &[1]));
    for (x, y) in [(a.session, b.session), (a.supplier, b.supplier), (a.devices[0], b.devices[0])] {
        script.step(&a.set_drain(x, 1, 0, &[1]), &b.set_drain(y, 1, 0, &[1]));
    }
    script.step(&a.delegate(a.session, 0), &b.delegate(b.session, 0));
    script.step(&a.rotate(0, a.devices[0], a.devices[2]), &b.rotate(0, b.devices[0], b.devices[2]));
    script.step(&a.offer(3, STAKE), &b.offer(3, STAKE));
    script.step(&a.accept(3, STAKE), &b.accept(3, STAKE));
    script.step(&a.offer(4, STAKE), &b.offer(4, STAKE));
    // Only its supplier takes back an offer; only its co-staker asks to leave.
    script.refused(&a.exit(a.renter, 4), "another than the supplier");
    script.refused(&a.exit(a.supplier, 3), "another than the co-staker");
    script.step(&a.exit(a.supplier, 4), &b.exit(b.supplier, 4));
    script.step(&a.exit(a.renter, 3), &b.exit(b.renter, 3));
    script.world.wait(EXIT_WAIT_S);
    script.step(&a.exit(a.renter, 3), &b.exit(b.renter, 3));
    script.world.wait(UNBOND_S);
    script.step(&a.exit_paid(a.renter, 3), &b.exit_paid(b.renter, 3));
    script.step(&a.retire(0, a.devices[2]), &b.retire(0, b.devices[2]));
    script.step(&a.retire(1, a.devices[1]), &b.retire(1, b.devices[1]));
    script.step(&a.unstake(2 * STAKE), &b.unstake(2 * STAKE));
    script.world.wait(UNBOND_S);
    script.step(&a.unstake_withdraw(), &b.unstake_withdraw());
    script.step(&a.close_device_key(0, a.devices[1]), &b.close_device_key(0, b.devices[1]));
    script.step(&a.close_page(), &b.close_page());
}

/// The step that only the attestors' silence allows.
const SILENT: [&str; 1] = ["settle_cosigned"];

#[test]
fn no_account_of_a_silent_settlement_can_be_another() {
    let mut world = World::new();
    let (a, b) = (Party::ready(&mut world, "a", 1), Party::ready(&mut world, "b", 1));
    for party in [&a, &b] {
        world.must(&party.set_budget(50 * ATL, 0, i64::MAX));
        world.must(&party.post_by_budget(&party.terms(1)));
        world.must(&party.fill(0, 0, &[1]));
    }
    world.wait(i64::from(STALL_S));
    let owners = [a.order(), a.budget()];
    let mut script = Script { world, covered: BTreeSet::new(), tried: 0, owners };
    let now = script.world.now();
    let by_session = |world: &World, party: &Party| {
        let metas = party.cosign_by(party.session, 0, 0).metas;
        Call { metas, ..party.cosign(world, 0, 20, now) }
    };
    let calls = [by_session(&script.world, &a), by_session(&script.world, &b)];
    script.step(&calls[0], &calls[1]);
    let calls = [a.cosign(&script.world, 0, 30, now), b.cosign(&script.world, 0, 30, now)];
    script.step(&calls[0], &calls[1]);
    assert_eq!(script.covered, BTreeSet::from(SILENT));
    assert!(script.tried > 100, "only {} mutations were tried", script.tried);
}

/// The steps of rewards.
const REWARD: [&str; 2] = ["claim_reward", "post_reward"];

#[test]
fn no_account_of_a_reward_can_be_another() {
    let mut world = World::new();
    let (a, b) = (Party::ready(&mut world, "a", 1), Party::ready(&mut world, "b", 1));
    for party in [&a, &b] {
        world.must(&party.set_budget(50 * ATL, 0, i64::MAX));
        world.must(&party.post_by_budget(&party.terms(1)));
    }
    world.fill_emission(ATL);
    world.wait(2 * 3_600);
    let owners = [a.order(), a.budget()];
    let mut script = Script { world, covered: BTreeSet::new(), tried: 0, owners };
    let hours = [0, 1].map(|hour| Hour::over(hour, &[(a.page, 700 + hour), (b.page, 50 + hour)]));
    let post = |world: &World, hour| world.post_reward(world.attestor, hour);
    let calls = [post(&script.world, &hours[0]), post(&script.world, &hours[1])];
    script.step(&calls[0], &calls[1]);
    script.world.wait(i64::from(HOLD_S));
    // The first claim makes the supplier's account, the second finds it.
    for hour in &hours {
        let calls = [a.claim(hour, 0), b.claim(hour, 1)];
        script.step(&calls[0], &calls[1]);
    }
    assert_eq!(script.covered, BTreeSet::from(REWARD));
    assert!(script.tried > 200, "only {} mutations were tried", script.tried);
}

/// The steps of a fraud, each by itself.
const FRAUD: [&str; 3] = ["open_fraud", "add_fraud_element", "execute_slash"];

#[test]
fn no_account_of_a_fraud_can_be_another() {
    let mut world = World::new();
    let (a, b) = (Party::ready(&mut world, "a", 1), Party::ready(&mut world, "b", 1));
    let accusers = ["x", "y"].map(|name| world.key(name));
    for accuser in accusers {
        world.purse(accuser);
    }
    for party in [&a, &b] {
        world.must(&party.post(1));
        world.must(&party.fill(0, 0, &[1]));
    }
    world.wait(50);
    let owners = [a.order(), a.budget()];
    let mut script = Script { world, covered: BTreeSet::new(), tried: 0, owners };
    let wrong = [(0, 0), (1, 1)];
    let answers = [(&a, 1), (&b, 2), (&a, 3), (&b, 4)]
        .map(|(party, seed)| Answer::with_wrong(&script.world, party.devices[0], seed, &wrong));
    for [one, two] in [[0, 1], [2, 3]] {
        let open = |party: &Party, index: usize| {
            party.open_fraud(&script.world, accusers[index % 2], &answers[index], Some(0))
        };
        let calls = [open(&a, one), open(&b, two)];
        script.step(&calls[0], &calls[1]);
        script.step(&answers[one].show(wrong[0], None), &answers[two].show(wrong[0], None));
    }
    script.step(&answers[0].show(wrong[1], None), &answers[1].show(wrong[1], None));
    let join = |index: usize| {
        let (with, opener) = (&answers[index], accusers[index]);
        answers[index + 2].show(wrong[1], Some((with, opener)))
    };
    script.step(&join(0), &join(1));
    let execute =
        |party: &Party, index: usize| party.execute_slash(accusers[index], &answers[index + 2], Some(party.purse));
    script.step(&execute(&a, 0), &execute(&b, 1));
    assert_eq!(script.covered, BTreeSet::from(FRAUD));
    assert!(script.tried > 300, "only {} mutations were tried", script.tried);
}

/// The steps of a dispute, each by itself.
const DISPUTE: [&str; 4] = ["open_dispute", "vote_dispute", "appeal", "close_dispute"];

#[test]
fn no_account_of_a_dispute_can_be_another() {
    let mut world = World::seated();
    let (a, b) = (Party::ready(&mut world, "a", 1), Party::ready(&mut world, "b", 1));
    for party in [&a, &b] {
        world.must(&party.post(1));
        world.must(&party.fill(0, 0, &[1]));
    }
    world.wait(50);
    let until = world.now();
    let tree = world.finalise(&[leaf(a.lease(0), 40, until), leaf(b.lease(0), 40, until)]);
    let owners = [a.order(), a.budget()];
    let mut script = Script { world, covered: BTreeSet::new(), tried: 0, owners };
    script.step(&tree.dispute(a.renter, &a, 0, 10), &tree.dispute(b.renter, &b, 1, 20));
    let [at, beside] = [&a, &b].map(|party| dispute(party.lease(0), tree.index));
    script.world.set_slot(2_000);
    for dispute in [at, beside] {
        script.world.must(&script.world.draw(dispute));
    }
    // Seats of one panel alone: what a seat of both signs for one dispute is as good for the other.
    let panels = [at, beside].map(|dispute| script.world.panel(dispute));
    let only = |one: usize| panels[one].iter().copied().find(|seat| !panels[1 - one].contains(seat)).unwrap();
    let [x, y] = [only(0), only(1)].map(|seat| script.world.seat(seat)[1]);
    let vote = |world: &World, key, at| world.vote_dispute(key, at, ix::FOR_OPENER);
    script.step(&vote(&script.world, x, at), &vote(&script.world, y, beside));
    script.world.set_time(script.world.read::<Dispute>(at).vote_until);
    script.step(&script.world.appeal(a.supplier, at), &script.world.appeal(b.supplier, beside));
    for seat in 0..5 {
        let key = script.world.seat(seat)[1];
        for (at, choice) in [(at, ix::FOR_LEAF), (beside, ix::FOR_OPENER)] {
            script.world.must(&script.world.vote_dispute(key, at, choice));
        }
    }
    script.world.set_time(script.world.read::<Dispute>(at).appeal_until);
    // One pays supplier, appellant and nobody's opener; the other the opener alone, twice.
    let calls = [(&a, at), (&b, beside)].map(|(party, at)| party.close_dispute(&script.world, at));
    let (mut copy, covered) = (script.world.copy(), script.covered.clone());
    std::mem::swap(&mut script.world, &mut copy);
    script.step(&calls[1], &calls[0]);
    (script.world, script.covered) = (copy, covered);
    script.owners = [b.order(), b.budget()];
    script.step(&calls[0], &calls[1]);
    assert_eq!(script.covered, BTreeSet::from(DISPUTE));
}

/// The steps of a vote and of a pause, each by itself.
const GOVERN: [&str; 5] = ["execute", "pause", "propose", "queue", "vote"];

#[test]
fn no_account_of_a_vote_can_be_another() {
    let mut world = World::new();
    let (a, b) = (Party::weighty(&mut world, "a"), Party::weighty(&mut world, "b"));
    let guardian = world.key("guardian");
    world.must(&world.set_guardian(guardian));
    for party in [&a, &b] {
        world.must(&party.offer(0, STAKE));
        world.must(&party.accept(0, STAKE));
    }
    world.wait(1);
    let owners = [a.order(), a.budget()];
    let mut script = Script { world, covered: BTreeSet::new(), tried: 0, owners };
    let treasury = token_of(&mut script.world, "treasury 2", a.renter);
    let row = ix::SetCatalogue { id: 9, tier: 1, flags: 0, memory_mib: 1, multiplier_milli: 1, name: [0; 32] };
    let row = row.encode().unwrap().as_slice()[1..].to_vec();
    let proposals = [(ACTION_CATALOGUE, row), (ACTION_TREASURY, treasury.to_vec())];
    for (at, (action, payload)) in (0u64..).zip(&proposals) {
        let n = 2 * at;
        // Both propose the same; the second one only so that an account of another proposal is there.
        let propose = |party: &Party, n| party.propose(n, *action, payload, [7; 32]);
        script.step(&propose(&a, n), &propose(&b, n + 1));
        script.step(&a.vote(n, VOTE_FOR), &b.vote(n, VOTE_FOR));
        script.step(&a.vote_by_costake(0, n, VOTE_FOR), &b.vote_by_costake(0, n, VOTE_AGAINST));
        script.world.wait(PROPOSAL_S);
        script.world.must(&script.world.queue(n + 1));
        let queue = script.world.queue(n);
        script.alone(&queue, &queue);
        script.step(&a.vote(n, 0), &b.vote(n, 0));
        script.step(&a.vote_by_costake(0, n, 0), &b.vote_by_costake(0, n, 0));
        script.world.wait(TIMELOCK_S);
        let place = |n| if *action == ACTION_TREASURY { treasury } else { proposal(n) };
        let calls = [n, n + 1].map(|n| script.world.execute_with(n, place(n)));
        script.alone(&calls[0], &calls[1]);
    }
    let pause = script.world.pause(guardian, 1);
    script.alone(&pause, &pause);
    assert_eq!(script.covered, BTreeSet::from(GOVERN));
    assert!(script.tried > 300, "only {} mutations were tried", script.tried);
}

/// The steps of spot and of a budget's extension, each by itself.
const SPOT: [&str; 3] = ["post_order_spot", "notice_reclaim", "extend_by_budget"];

#[test]
fn no_account_of_a_spot_order_can_be_another() {
    let mut world = World::new();
    let (a, b) = (Party::ready(&mut world, "a", 2), Party::ready(&mut world, "b", 2));
    let owners = [a.order(), a.budget()];
    let mut script = Script { world, covered: BTreeSet::new(), tried: 0, owners };
    script.step(&a.post_spot(1), &b.post_spot(1));
    for party in [&a, &b] {
        script.world.must(&party.fill(0, 0, &[1]));
    }
    script.step(&a.notice(0), &b.notice(0));
    let (c, d) = (Party { nonce: 2, ..a }, Party { nonce: 2, ..b });
    for party in [&c, &d] {
        script.world.must(&party.set_budget(100 * ATL, 0, START + 100_000));
        script.world.must(&party.post_by_budget(&party.terms(1)));
        script.world.must(&party.fill(0, 1, &[1]));
    }
    script.owners = [c.order(), c.budget()];
    let call = |party: &Party, world: &World| party.extend_by_budget(30, party.extension(world, 30));
    script.step(&call(&c, &script.world), &call(&d, &script.world));
    assert_eq!(script.covered, BTreeSet::from(SPOT));
    assert!(script.tried > 200, "only {} mutations were tried", script.tried);
}

/// The steps of a vesting.
const VESTING: [&str; 2] = ["claim_vesting", "grant_vesting"];

#[test]
fn no_account_of_a_vesting_can_be_another() {
    let mut world = World::new();
    let (a, b) = (Party::ready(&mut world, "a", 1), Party::ready(&mut world, "b", 1));
    for party in [&a, &b] {
        world.must(&party.set_budget(50 * ATL, 0, i64::MAX));
        world.must(&party.post_by_budget(&party.terms(1)));
    }
    let owners = [a.order(), a.budget()];
    let mut script = Script { world, covered: BTreeSet::new(), tried: 0, owners };
    let calls = [&a, &b].map(|party| script.world.grant(&script.world.terms_for(party.renter, 1_000_003)));
    script.step(&calls[0], &calls[1]);
    for _ in 0..2 {
        script.world.wait(500);
        let calls = [&a, &b].map(|party| script.world.claim_vesting(party.renter, 0, party.purse));
        script.step(&calls[0], &calls[1]);
    }
    assert_eq!(script.covered, BTreeSet::from(VESTING));
    assert!(script.tried > 150, "only {} mutations were tried", script.tried);
}

#[test]
fn the_networks_own_instructions_refuse_strangers() {
    let mut world = World::bare();
    let init = world.init();
    world.must(&init);
    world.refused(&world.init(), Error::AlreadyInitialised);

    let stranger = world.key("stranger");
    for call in [world.set_catalogue(1), world.set_feed(250_000), world.set_rules(), world.set_rules()] {
        let mut forged = call.clone();
        forged.metas[0].address = stranger;
        world.refused(&forged, Error::NotAuthorised);
        forged.metas[0].signer = false;
        world.refused(&forged, Error::SignerMissing);
        world.must(&call);
    }
    let owner = world.admin;
    world.purse(owner);
    world.purse(stranger);
    world.refused(&world.register_seat(0, stranger, world.attestor), Error::SeatUnknown);
    world.refused(&world.register_seat(0, owner, stranger), Error::SeatUnknown);
    world.refused(&world.register_seat(1, owner, world.attestor), Error::SeatUnknown);
    let register = world.register_attestor();
    for index in [0, 1] {
        let mut unsigned = register.clone();
        unsigned.metas[index].signer = false;
        world.refused(&unsigned, Error::SignerMissing);
    }
    world.must(&register);
    world.refused(&world.register_attestor(), Error::AlreadyInitialised);

    world.refused(&world.post_epoch(world.attestor, 0, [1; 32]), Error::EpochNotOver);
    world.wait(10);
    let mut forged = world.post_epoch(world.attestor, 0, [1; 32]);
    forged.metas[0].address = stranger;
    world.refused(&forged, Error::NotAuthorised);
    world.must(&world.post_epoch(world.attestor, 0, [1; 32]));
    world.refused(&world.post_epoch(world.attestor, 0, [2; 32]), Error::VoteRepeated);
    world.refused(&world.post_epoch(world.attestor, 0, [1; 32]), Error::VoteRepeated);
}

#[test]
fn init_refuses_a_set_without_a_majority_or_with_twins() {
    let world = World::bare();
    let seat = |byte: u8| [byte; 64];
    let mut twin = seat(1);
    twin[32..].copy_from_slice(&[9; 32]);
    for (threshold, seats) in [
        (0, vec![]),
        (1, vec![seat(1), seat(2)]),
        (3, vec![seat(1), seat(2)]),
        (2, vec![seat(1), seat(1)]),
        (2, vec![seat(1), twin]),
    ] {
        let call = world.init_with(threshold, &seats);
        assert_eq!(world.try_call(&call), Err(Refusal::Market(Error::ParameterOutOfRange)), "{threshold} of {seats:?}");
    }
}
