//! Disputes on leaves: who judges, what a verdict does, and that nothing of it stays behind.

use atoll_fuzz::Rng;
use atoll_interface::{
    ATL, Address, Error,
    dispute::{DRAW_DELAY_SLOTS, Outcome, REDRAW_SLOTS},
    instruction::{DRAW, FOR_LEAF, FOR_OPENER},
    layout::{Dispute, Lease, Order},
    settlement::Reason,
};
use atoll_market_tests::{
    Call, Party, Refusal, World,
    calls::{Attested, DURATION_S, HOLD_S, STALL_S, leaf},
    disputes::{SEATS, dispute},
    stakes::rule_values,
};

/// Bond of the tests' network.
const BOND: u64 = 50 * ATL;

fn voting_s() -> i64 {
    i64::from(rule_values().voting_s)
}

fn appeal_s() -> i64 {
    i64::from(rule_values().appeal_s)
}

/// A party with two leases of one device, of which the first leaf says 40 s and the second 30 s, just final.
fn ready() -> (World, Party, Attested) {
    let mut world = World::seated();
    let party = Party::ready(&mut world, "a", 2);
    world.must(&party.post(2));
    world.must(&party.fill(0, 0, &[1]));
    world.must(&party.fill(1, 1, &[1]));
    world.wait(50);
    let until = world.now();
    let tree = world.finalise(&[leaf(party.lease(0), 40, until), leaf(party.lease(1), 30, until)]);
    (world, party, tree)
}

/// As [`ready`], and the renter disputes the first leaf: 10 s.
fn opened() -> (World, Party, Attested, Address) {
    let (mut world, party, tree) = ready();
    world.must(&tree.dispute(party.renter, &party, 0, 10));
    let at = dispute(party.lease(0), tree.index);
    (world, party, tree, at)
}

/// Waits for the draw, and lets seats of the panel vote in its order.
fn votes(world: &mut World, at: Address, choices: &[u8]) {
    let record: Dispute = world.read(at);
    world.set_slot(record.draw_slot + 1);
    if record.lacks_draw() {
        world.must(&world.draw(at));
    }
    for (seat, choice) in world.panel(at).into_iter().zip(choices) {
        let [_, key] = world.seat(seat);
        world.must(&world.vote_dispute(key, at, *choice));
    }
}

fn close(world: &mut World, party: &Party, at: Address) {
    let record: Dispute = world.read(at);
    let end = if record.appeal_bond > 0 { record.appeal_until } else { record.file_until() };
    world.set_time(end - 1);
    let call = party.close_dispute(world, at);
    world.refused(&call, Error::DisputeStageWrong);
    world.set_time(end);
    let rent = world.lamports(record.opener);
    world.must(&call);
    assert!(world.lamports(record.opener) > rent, "the rent goes back");
    assert_eq!(world.data(at), None);
    assert_eq!(world.data(call.metas[1].address), None, "the vault is gone");
    assert_eq!(world.tokens_everywhere(), world.supply());
}

#[test]
fn a_verdict_against_the_leaf_settles_its_ceiling_and_gives_the_bond_back() {
    let (mut world, party, tree, at) = opened();
    let purse = world.tokens(party.purse);
    votes(&mut world, at, &[FOR_OPENER, FOR_OPENER, FOR_OPENER]);
    close(&mut world, &party, at);
    assert_eq!(world.tokens(party.purse), purse + BOND);
    let lease: Lease = world.read(party.lease(0));
    assert_eq!((lease.device_seconds_paid, lease.unserved), (10, 40), "of 50 s at the leaf's time 10 stand");
    world.refused(&tree.settle(0, party.order()), Error::LeafStale);
    // What it served later is paid.
    let (now, cap) = (world.now(), lease.cap(world.now()).unwrap());
    let tree = world.finalise(&[leaf(party.lease(0), cap, now), leaf(party.lease(0), cap + 1, now)]);
    world.wait(i64::from(HOLD_S));
    world.refused(&tree.settle(1, party.order()), Error::AboveCap);
    world.must(&tree.settle(0, party.order()));
}

#[test]
fn a_leaf_that_stands_costs_half_of_the_bond_to_the_supplier_and_half_to_nobody() {
    let (mut world, party, _, at) = opened();
    let (purse, supplier, supply) = (world.tokens(party.purse), world.tokens(party.supplier_purse), world.supply());
    votes(&mut world, at, &[FOR_LEAF, FOR_LEAF, FOR_OPENER]);
    close(&mut world, &party, at);
    assert_eq!(world.tokens(party.purse), purse);
    assert_eq!(world.tokens(party.supplier_purse), supplier + BOND / 2);
    assert_eq!(world.supply(), supply - BOND / 2);
    let lease: Lease = world.read(party.lease(0));
    assert_eq!((lease.device_seconds_paid, lease.unserved), (40, 0));
    world.must(&party.withdraw(0));
}

#[test]
fn without_a_quorum_the_leaf_stands_and_the_bond_goes_back() {
    for drawn in [false, true] {
        let (mut world, party, _, at) = opened();
        let (purse, supply) = (world.tokens(party.purse), world.supply());
        if drawn {
            votes(&mut world, at, &[FOR_OPENER, FOR_OPENER]);
        }
        close(&mut world, &party, at);
        assert_eq!((world.tokens(party.purse), world.supply()), (purse + BOND, supply));
        assert_eq!(world.read::<Lease>(party.lease(0)).device_seconds_paid, 40);
    }
}

#[test]
fn a_dispute_freezes_its_lease_alone() {
    let (mut world, party, tree, at) = opened();
    world.wait(i64::from(HOLD_S));
    world.refused(&tree.settle(0, party.order()), Error::LeaseFrozen);
    world.refused(&tree.settle_batch(0, 2, party.order()), Error::LeaseFrozen);
    world.must(&tree.settle(1, party.order()));
    world.must(&party.withdraw(1));
    let added = party.extension(&world, 30);
    world.must(&party.extend_order(party.renter, 30, added));
    world.must(&party.extend_lease(0));
    // Its devices can leave and serve others; it cannot be closed, however long the stall.
    world.must(&party.release(party.renter, 0, Reason::Done, 0, &[1]));
    world.must(&party.release(party.renter, 1, Reason::Done, 1, &[1]));
    let next = Party { nonce: 2, ..party.clone() };
    world.must(&next.post(1));
    world.must(&next.fill(0, 0, &[1]));
    world.wait(i64::from(STALL_S) + 1);
    world.refused(&party.close_lease(0), Error::LeaseFrozen);
    world.must(&party.close_lease(1));
    world.refused(&party.close_order(party.renter), Error::OrderStillHeld);
    // Thawed, the stall begins anew: the supplier can settle what came meanwhile.
    world.must(&party.close_dispute(&world, at));
    world.refused(&party.close_lease(0), Error::LeaseUnsettled);
    world.wait(i64::from(STALL_S));
    world.must(&party.close_lease(0));
    world.must(&party.collect());
    world.must(&party.close_order(party.renter));
}

#[test]
fn only_a_leaf_within_its_hold_is_disputed_and_once() {
    let (mut world, party, tree) = ready();
    let good = tree.dispute(party.renter, &party, 0, 10);
    for (ceiling, why) in [(40, Error::CeilingWrong), (u64::MAX, Error::CeilingWrong)] {
        world.refused(&tree.dispute(party.renter, &party, 0, ceiling), why);
    }
    let poor = world.key("poor");
    world.token(atoll_market_tests::sha256(&[b"purse", &poor]), poor, BOND - 1);
    world.refused(&tree.dispute(poor, &party, 0, 10), Error::FundsShort);
    let mut other = good.clone();
    other.data[9] ^= 1;
    world.refused(&other, Error::LeafPathWrong);
    let mut late = world.copy();
    world.must(&good);
    assert!(world.try_call(&good).is_err(), "the same leaf again");
    world.wait(5);
    let until = world.now();
    let next = world.finalise(&[leaf(party.lease(0), 45, until)]);
    world.refused(&next.dispute(party.renter, &party, 0, 10), Error::LeaseFrozen);

    std::mem::swap(&mut world, &mut late);
    world.wait(i64::from(HOLD_S));
    world.refused(&good, Error::HoldOver);
    let until = world.now();
    world.wait(10);
    let early = Attested::over(world.last_epoch(), &[leaf(party.lease(0), 45, until)]);
    let [_, key] = world.seat(0);
    world.must(&world.post_epoch(key, early.index, early.root));
    world.refused(&early.dispute(party.renter, &party, 0, 10), Error::EpochNotFinal);
    // A dispute that is over leaves nothing to dispute in its leaf, also while the hold lasts longer than it did.
    std::mem::swap(&mut world, &mut late);
    let at = dispute(party.lease(0), tree.index);
    let mut config = world.data(atoll_market_tests::calls::config()).unwrap();
    let hold = config.windows(4).rposition(|bytes| bytes == HOLD_S.to_le_bytes()).unwrap();
    config[hold..hold + 4].copy_from_slice(&1_000_000u32.to_le_bytes());
    world.put(atoll_market_tests::calls::config(), atoll_interface::PROGRAM_ID, config);
    close(&mut world, &party, at);
    world.refused(&good, Error::CeilingWrong);
}

#[test]
fn the_panel_is_drawn_by_a_slot_that_nobody_knew_and_once() {
    let (mut world, _, _, at) = opened();
    let opened_in = 1_000;
    let record: Dispute = world.read(at);
    assert_eq!(record.draw_slot, opened_in + DRAW_DELAY_SLOTS);
    let draw = world.draw(at);
    world.refused(&draw, Error::DrawTooEarly);
    world.set_slot(record.draw_slot);
    world.refused(&draw, Error::DrawTooEarly);
    // For as long as the hash is known, whoever draws gets the same panel.
    let panel_at = |world: &World, slot: u64, known: Option<&[u64]>| {
        let mut copy = world.copy();
        copy.set_slot(slot);
        if let Some(known) = known {
            copy.set_slot_hashes(known);
        }
        copy.send(&copy.draw(at)).map(|_| copy.read::<Dispute>(at).draw)
    };
    let first = panel_at(&world, record.draw_slot + 1, None).unwrap();
    assert_eq!(panel_at(&world, record.draw_slot + 100, None), Ok(first));
    assert_eq!(panel_at(&world, record.draw_slot + 512, None), Ok(first));
    // Then the next one is as fixed: no slot in between can be chosen.
    let second = panel_at(&world, record.draw_slot + 513, None).unwrap();
    assert_ne!(second, first);
    for later in [514, 700, 1_024] {
        assert_eq!(panel_at(&world, record.draw_slot + later, None), Ok(second), "{later}");
    }
    assert_ne!(panel_at(&world, record.draw_slot + REDRAW_SLOTS * 2 + 1, None).unwrap(), second);
    // A slot that was skipped gives way to the next that was not.
    let skipped: Vec<u64> = (900..1_100).rev().filter(|slot| !(1_032..1_040).contains(slot)).collect();
    let after = panel_at(&world, 1_100, Some(&skipped)).unwrap();
    let by_1040 = panel_at(&world, 1_100, Some(&[1_050, 1_040, 1_000])).unwrap();
    assert_eq!(after, by_1040);
    assert_ne!(after, first);
    assert_eq!(panel_at(&world, 1_100, Some(&[])), Err(Refusal::Market(Error::DrawTooEarly)));
    // The list may be far shorter than a chain's, and far sparser.
    assert_eq!(panel_at(&world, 1_100, Some(&[1_032])), Ok(first));

    world.set_slot(record.draw_slot + 1);
    world.must(&draw);
    assert_eq!(world.panel(at).len(), 5);
    world.refused(&draw, Error::NothingToDo);
    world.wait(voting_s());
    world.refused(&draw, Error::NothingToDo);
    let (mut late, _, _, at) = opened();
    late.set_slot(2_000);
    late.wait(voting_s());
    late.refused(&late.draw(at), Error::DisputeStageWrong);
}

#[test]
fn only_seats_of_the_panel_vote_each_once_and_no_party_does() {
    let (mut world, party, tree) = ready();
    // The owner of a seat opens: it does not judge, not even on appeal.
    let [owner, own_key] = world.seat(0);
    world.must(&tree.dispute(owner, &party, 0, 10));
    let at = dispute(party.lease(0), tree.index);
    world.set_slot(2_000);
    // The first vote draws the panel.
    let panel = {
        let mut copy = world.copy();
        copy.must(&copy.draw(at));
        copy.panel(at)
    };
    assert!(!panel.contains(&0));
    let [_, member] = world.seat(panel[0]);
    world.must(&world.vote_dispute(member, at, FOR_LEAF));
    assert_eq!(world.panel(at), panel);
    world.refused(&world.vote_dispute(member, at, FOR_OPENER), Error::PanelVoteRepeated);
    let outside = (1..SEATS).find(|seat| !panel.contains(seat)).unwrap();
    let [_, outsider] = world.seat(outside);
    world.refused(&world.vote_dispute(outsider, at, FOR_LEAF), Error::NotOnPanel);
    world.refused(&world.vote_dispute(own_key, at, FOR_OPENER), Error::NotOnPanel);
    let [_, next] = world.seat(panel[1]);
    world.refused(&world.vote_dispute(next, at, 7), Error::InstructionMalformed);
    // Another's attestor account, and none.
    let mut forged = world.vote_dispute(next, at, FOR_LEAF);
    forged.metas[1].address = world.vote_dispute(member, at, FOR_LEAF).metas[1].address;
    world.refused(&forged, Error::NotAuthorised);
    forged.metas[1].address = at;
    world.refused(&forged, Error::AccountKindWrong);
    let drawn_by = world.vote_dispute(next, at, DRAW);
    let mut forged = drawn_by.clone();
    forged.metas[1].address = next;
    world.refused(&forged, Error::AddressWrong);
    // Who equivocated judges nothing.
    let accuser = world.admin;
    world.purse(accuser);
    world.must(&world.prove(accuser, next, [(7, [1; 32]), (7, [2; 32])]));
    world.refused(&world.vote_dispute(next, at, FOR_LEAF), Error::AttestorSlashed);
    world.wait(voting_s());
    let [_, late] = world.seat(panel[2]);
    world.refused(&world.vote_dispute(late, at, FOR_LEAF), Error::DisputeStageWrong);
    // On appeal all others sit: nothing is left to draw.
    world.must(&world.appeal(party.renter, at));
    assert_eq!(world.panel(at), (1..SEATS).collect::<Vec<_>>());
    world.refused(&world.vote_dispute(own_key, at, FOR_OPENER), Error::NotOnPanel);
    world.must(&world.vote_dispute(outsider, at, FOR_OPENER));
    world.must(&world.vote_dispute(member, at, FOR_LEAF));
}

#[test]
fn an_appeal_costs_twice_the_bond_and_its_loser_half_of_it() {
    let (mut world, party, _, at) = opened();
    votes(&mut world, at, &[FOR_OPENER, FOR_OPENER, FOR_OPENER]);
    world.refused(&world.appeal(party.supplier, at), Error::DisputeStageWrong);
    world.wait(voting_s());
    let mut copy = world.copy();
    copy.wait(appeal_s() / 2);
    copy.refused(&copy.appeal(party.supplier, at), Error::DisputeStageWrong);
    let poor = world.key("poor");
    world.token(atoll_market_tests::sha256(&[b"purse", &poor]), poor, 2 * BOND - 1);
    world.refused(&world.appeal(poor, at), Error::FundsShort);
    let (renter, supplier, supply) = (world.tokens(party.purse), world.tokens(party.supplier_purse), world.supply());
    world.must(&world.appeal(party.supplier, at));
    assert_eq!(world.tokens(party.supplier_purse), supplier - 2 * BOND);
    world.refused(&world.appeal(party.supplier, at), Error::DisputeStageWrong);
    // It wins: the opener's bond is lost now.
    let mut won = world.copy();
    votes(&mut won, at, &[FOR_LEAF; 5]);
    close(&mut won, &party, at);
    assert_eq!(won.tokens(party.supplier_purse), supplier + BOND / 2);
    assert_eq!((won.tokens(party.purse), won.supply()), (renter, supply - BOND / 2));
    assert_eq!(won.read::<Lease>(party.lease(0)).device_seconds_paid, 40);
    // It loses: half of its bond goes to the opener.
    votes(&mut world, at, &[FOR_OPENER; 5]);
    close(&mut world, &party, at);
    assert_eq!(world.tokens(party.supplier_purse), supplier - 2 * BOND);
    assert_eq!((world.tokens(party.purse), world.supply()), (renter + 2 * BOND, supply - BOND));
    assert_eq!(world.read::<Lease>(party.lease(0)).device_seconds_paid, 10);
}

#[test]
fn what_is_sent_to_the_vault_by_mistake_holds_nothing_up() {
    let (mut world, party, _, at) = opened();
    let vault = party.close_dispute(&world, at).metas[1].address;
    let held = world.tokens(vault);
    world.token(vault, at, held + 7);
    let supply = world.supply() - held;
    let mut mint = world.svm.get_account(&world.mint.into()).unwrap();
    mint.data[36..44].copy_from_slice(&supply.to_le_bytes());
    world.svm.set_account(world.mint.into(), mint).unwrap();
    close(&mut world, &party, at);
    assert_eq!(world.supply(), supply - 7);
}

/// Anybody does anything at any time; in the end everything is closed by a stranger, and all money is where it belongs.
#[test]
fn no_sequence_of_steps_leaves_money_behind() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (seed, many) = (number("ATOLL_MODEL_SEED").unwrap_or(1), number("ATOLL_MODEL_STEPS").unwrap_or(10_000) / 1_000);
    let mut seen = [0u32; 4];
    for seed in seed..seed + many.clamp(24, 400) {
        let mut walk = Walk::new(seed);
        for _ in 0..60 {
            walk.step();
        }
        let outcome = walk.end();
        seen[outcome] += 1;
    }
    println!("disputes: none {}, opener {}, leaf {}, no quorum {}", seen[0], seen[1], seen[2], seen[3]);
    assert!(seen[1] > 0 && seen[2] > 0 && seen[3] > 0, "these walks decide too little: {seen:?}");
}

struct Walk {
    world: World,
    party: Party,
    tree: Attested,
    at: Address,
    rng: Rng,
    seed: u64,
    /// Money of renter, supplier and two strangers at the start.
    before: u64,
    verdict: usize,
}

const ACTORS: [&str; 2] = ["x", "y"];

impl Walk {
    fn new(seed: u64) -> Self {
        let (mut world, party, tree) = ready();
        for name in ACTORS {
            let key = world.key(name);
            world.purse(key);
        }
        let at = dispute(party.lease(0), tree.index);
        let before = world.tokens_everywhere();
        Self { world, party, tree, at, rng: Rng::new(seed), seed, before, verdict: 0 }
    }

    fn actor(&mut self) -> Address {
        let [x, y] = ACTORS.map(|name| self.world.key(name));
        let [owner, _] = self.world.seat(2);
        [self.party.renter, self.party.supplier, x, y, owner][self.rng.below(5)]
    }

    /// Any seat; more often one that was drawn.
    fn seat(&mut self) -> Address {
        let panel = self.world.data(self.at).map(|_| self.world.panel(self.at)).unwrap_or_default();
        let seat = match panel.len() {
            drawn if drawn > 0 && self.rng.below(4) > 0 => panel[self.rng.below(drawn)],
            _ => u16::try_from(self.rng.below(usize::from(SEATS))).unwrap(),
        };
        self.world.seat(seat)[1]
    }

    fn call(&mut self) -> Option<Call> {
        let (actor, key, open) = (self.actor(), self.seat(), self.world.data(self.at).is_some());
        // Seats of one walk lean to one side, else hardly a panel has a majority.
        let leaning = if self.seed.is_multiple_of(2) { FOR_OPENER } else { FOR_LEAF };
        let choice = [leaning, leaning, leaning, FOR_OPENER, FOR_LEAF, DRAW][self.rng.below(6)];
        let ceiling = self.rng.below(45) as u64;
        let n = u16::try_from(self.rng.below(2)).unwrap();
        Some(match self.rng.below(15) {
            0 | 1 => self.tree.dispute(actor, &self.party, usize::from(n), ceiling),
            2..7 => self.world.vote_dispute(key, self.at, choice),
            7 => self.world.appeal(actor, self.at),
            8 if open => self.party.close_dispute(&self.world, self.at),
            9 => self.tree.settle(usize::from(n), self.party.order()),
            10 => self.party.release_at(self.party.supplier, n, Reason::Leave, n, &[1], self.world.now() - 30),
            11 => self.party.close_lease(n),
            _ => return None,
        })
    }

    fn step(&mut self) {
        let Some(call) = self.call() else {
            let slot = self.world.svm.get_sysvar::<solana_clock::Clock>().slot;
            self.world.set_slot(slot + self.rng.below(400) as u64);
            self.world.wait([1, 1, 1, 3, 3, 40, 90][self.rng.below(7)]);
            return;
        };
        let record = self.world.data(self.at).map(|_| self.world.read::<Dispute>(self.at));
        let sent = self.world.send(&call);
        if call.name == "close_dispute" && sent.is_ok() {
            self.verdict = record.expect("it was open").verdict() as usize;
        }
        self.check();
    }

    /// Whatever happened: no token out of nothing, the order's books are whole, and the vault holds the bonds.
    fn check(&self) {
        let seed = self.seed;
        assert_eq!(self.world.tokens_everywhere(), self.world.supply(), "seed {seed}");
        let order: Order = self.world.read(self.party.order());
        assert_eq!(order.vault().unwrap(), self.world.tokens(self.party.vault()), "seed {seed}");
        if self.world.data(self.at).is_some() {
            let (record, mut lease): (Dispute, Lease) =
                (self.world.read(self.at), self.world.read(self.party.lease(0)));
            let vault = self.party.close_dispute(&self.world, self.at).metas[1].address;
            assert_eq!(self.world.tokens(vault), record.bond + record.appeal_bond, "seed {seed}");
            assert!(lease.settle(&mut order.clone(), &leaf([0; 32], 50, 0), 0) == Err(Error::LeaseFrozen));
        }
    }

    /// Time passes, and a stranger closes all.
    fn end(mut self) -> usize {
        let seed = self.seed;
        let escrow = self.world.read::<Order>(self.party.order()).escrow_initial;
        self.world.wait(2 * (voting_s() + appeal_s()) + i64::from(DURATION_S));
        for n in [0, 1] {
            let at = dispute(self.party.lease(n), self.tree.index);
            if self.world.data(at).is_some() {
                let record: Dispute = self.world.read(at);
                let call = self.party.close_dispute(&self.world, at);
                self.world.must(&call);
                if n == 0 {
                    self.verdict = record.verdict() as usize;
                }
            }
        }
        self.world.wait(i64::from(STALL_S));
        for n in [0, 1] {
            if let Some(data) = self.world.data(self.party.lease(n)) {
                let lease = <Lease as atoll_interface::layout::Record>::read(&data).unwrap();
                if lease.devices_live > 0 {
                    self.world.must(&self.party.release(self.party.node, n, Reason::Expired, n, &[1]));
                    self.world.wait(i64::from(STALL_S));
                }
                self.world.must(&self.party.close_lease(n));
            }
        }
        let _ = self.world.send(&self.party.collect());
        self.world.must(&self.party.close_order(self.party.node));
        // Half of lost bonds, which are one and two an opening and its appeal, and half of the fees are all that is burned.
        let burned = self.before - self.world.supply();
        let bonds_max = 2 * 3 * rule_values().dispute_bond;
        assert!(burned <= (bonds_max + escrow / 50) / 2, "seed {seed}: {burned}");
        for n in [0, 1] {
            assert_eq!(self.world.data(dispute(self.party.lease(n), self.tree.index)), None, "seed {seed}");
        }
        assert_eq!(self.world.tokens(self.party.vault()), 0, "seed {seed}");
        self.verdict
    }
}

/// The words that a verdict is counted by above.
const _: () = assert!(Outcome::NoQuorum as usize == 3);
