//! Checks a receipt with no network, starting from a pinned network root.
//!
//! Pure. The chain of reasons: the pinned root commits to program, chain and attestors; enough attestors signed each
//! epoch's root; each lease's leaf stands under such a root; each lease's address follows from order, page and number,
//! the page's from the supplier, the order's from the renter and the nonce in the transaction that the renter signed;
//! that transaction names the specification's root and the operator's key; further transactions of the renter's say by how much
//! the order was lengthened, but for what the receipt says it cannot show; and every sum follows from rates and attested
//! device-seconds by `interface`'s own arithmetic. What cannot be checked offline is listed as *given*, by name.

use std::collections::{BTreeMap, BTreeSet};

use atoll_api::receipt::{
    AttestedLeaf, CHECKED, EpochRecord, LeaseRecord, MoneyRecord, NetworkRecord, Receipt, ReceiptBody, ReceiptError,
    UnshownRecord,
};
use atoll_chain::address::Address as ChainAddress;
use atoll_chain::market::{Extension, extensions};
use atoll_chain::transaction;
use atoll_domain::job::{JobSpec, SignedSpec};
use atoll_domain::key::{Address, Digest, PublicKey, sha256};
use atoll_domain::money::Atl;
use atoll_interface::arithmetic;
use atoll_interface::instruction::{Instruction, PostOrder, PostOrderAccounts};
use atoll_interface::layout::{SEATS_MAX, SLOTS_MAX};
use atoll_interface::merkle::{self, FLAG_FINAL, Leaf};
use atoll_interface::network;
use atoll_interface::seeds;
use atoll_interface::settlement::{DURATION_S_MAX, FeeSplit, Pay, worst_case};
use atoll_interface::{Error as SumError, Hashes};
use base64::Engine as _;
use serde::Serialize;

/// Why a receipt is not valid, in words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);

impl From<ReceiptError> for Invalid {
    fn from(error: ReceiptError) -> Self {
        Self(error.to_string())
    }
}

/// What a valid receipt shows, and on what it rests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// The root that everything was checked against.
    pub network_root: Digest,
    /// The receipt's body, checked.
    pub body: ReceiptBody,
    /// The renter.
    pub renter: PublicKey,
    /// What was checked, one fact a line.
    pub proven: Vec<String>,
    /// What rests on somebody's word alone, and on whose.
    pub trusted: Vec<String>,
    /// What the receipt says and an offline check cannot see.
    pub given: Vec<String>,
}

fn refuse<T>(reason: impl Into<String>) -> Result<T, Invalid> {
    Err(Invalid(reason.into()))
}

fn ensure(holds: bool, reason: impl FnOnce() -> String) -> Result<(), Invalid> {
    if holds { Ok(()) } else { Err(Invalid(reason())) }
}

fn sum<T>(what: &str, result: Result<T, SumError>) -> Result<T, Invalid> {
    result.map_err(|error| Invalid(format!("{what}: {}", error.words())))
}

fn base64(what: &str, text: &str) -> Result<Vec<u8>, Invalid> {
    base64::engine::general_purpose::STANDARD.decode(text).map_err(|_| Invalid(format!("{what} is not base64")))
}

/// Checks a receipt against a pinned network root.
///
/// # Errors
/// [`Invalid`] with the first thing that does not hold.
pub fn verify(receipt: &Receipt, pinned: Digest) -> Result<Verified, Invalid> {
    let body = receipt.open()?;
    check_network(&body.network, pinned)?;
    let (order, spec) = read_order(&body)?;
    ensure(order.post.solvers.contains(&receipt.signer.0), || {
        format!("the signer {} is not among the solver keys that the renter's order names", receipt.signer)
    })?;
    check_spec(&body, &spec, &order)?;
    let epochs = check_epochs(&body, pinned)?;
    check_leases(&body, &order, &epochs)?;
    check_money(&body, &order)?;
    ensure(body.result.checked == CHECKED, || {
        let claim: String = body.result.checked.chars().take(80).collect();
        format!("it claims \"{}\", and version 1 can only claim \"{CHECKED}\"", crate::output::plain(&claim))
    })?;
    ensure(body.result.state.is_final(), || format!("the job's state `{}` is not final", body.result.state.word()))?;
    let (proven, trusted, given) = account(&body, &order, &spec);
    Ok(Verified { network_root: pinned, renter: order.renter, proven, trusted, given, body })
}

/// How what a receipt does not show is named.
const UNSHOWN: &str = "what lengthened the order and is not shown";

/// The renter's order, as its own transactions say.
struct SignedOrder {
    renter: PublicKey,
    post: PostOrder,
    rate_cap: u64,
    /// Its length with everything that lengthened it, in seconds.
    duration_s: u32,
    /// What was escrowed in all.
    escrow: u64,
    /// How many transactions lengthened it.
    extensions: usize,
}

impl SignedOrder {
    /// Adds time, and what was escrowed for it.
    fn lengthen(&mut self, seconds: u32, escrow: u64, name: &str) -> Result<(), Invalid> {
        let longer = self.duration_s.checked_add(seconds).filter(|all| *all <= DURATION_S_MAX);
        self.duration_s = longer.ok_or_else(|| Invalid(format!("{name}: the order is longer than an order may be")))?;
        self.escrow = sum(name, arithmetic::add(self.escrow, escrow))?;
        Ok(())
    }
}

fn check_network(network: &NetworkRecord, pinned: Digest) -> Result<(), Invalid> {
    let set = &network.attestors;
    ensure(!set.seats.is_empty() && set.seats.len() <= SEATS_MAX, || {
        format!("the attestor set has {} seats; 1 to {SEATS_MAX} are possible", set.seats.len())
    })?;
    let seats: Vec<[u8; 64]> = set
        .seats
        .iter()
        .map(|seat| {
            let mut bytes = [0; 64];
            bytes[..32].copy_from_slice(&seat.owner.0);
            bytes[32..].copy_from_slice(&seat.key.0);
            bytes
        })
        .collect();
    let root = network::network_root(sha256, &network.program_id.0, &network.genesis_hash.0, set.threshold, &seats);
    ensure(Digest(root) == pinned, || {
        format!(
            "it is of another network: program, genesis hash and attestors give root {}, pinned is {pinned}",
            Digest(root)
        )
    })?;
    ensure(2 * usize::from(set.threshold) > set.seats.len(), || {
        format!("{} of {} votes are no majority", set.threshold, set.seats.len())
    })?;
    ensure(network.attestor_changes.is_empty(), || {
        "the attestor set changed, and this build cannot follow the change: use a newer atoll".into()
    })
}

fn derived(seeds: &[&[u8]], program: &PublicKey) -> Option<Address> {
    let (address, _) = ChainAddress::find_program_address(seeds, &ChainAddress(program.0)).ok()?;
    Some(PublicKey(address.0))
}

fn read_order(body: &ReceiptBody) -> Result<(SignedOrder, JobSpec), Invalid> {
    let bytes = base64("the order's transaction", &body.order.transaction)?;
    let decoded = transaction::decode(&bytes).map_err(|error| Invalid(format!("the order's transaction: {error}")))?;
    let program = body.network.program_id;
    let mut found = None;
    for instruction in decoded.instructions.iter().filter(|instruction| instruction.program.0 == program.0) {
        if let Ok(Instruction::PostOrder(post)) = Instruction::decode(&instruction.data) {
            ensure(found.is_none(), || "the transaction posts more than one order".into())?;
            ensure(instruction.accounts.len() == PostOrderAccounts::FLAGS.len(), || {
                "post_order names another number of accounts than it takes".into()
            })?;
            // Accounts 0, 2 and 5 of PostOrderAccounts: the authority, the order and the budget.
            ensure(instruction.accounts[0].signer, || "the renter did not sign the order".into())?;
            let account = |at: usize| PublicKey(instruction.accounts[at].address.0);
            found = Some(([account(0), account(2), account(5)], post));
        }
    }
    let Some(([authority, address, budget], post)) = found else {
        return refuse("the signed transaction posts no order on this network's program");
    };
    let spec = open_spec(body, &post)?;
    // Whose order it is, its own accounts say: the wallet signed, or a key whose budget is that wallet's.
    ensure(authority == spec.signer(), || "the specification names another renter than the order".into())?;
    if let Some(key) = spec.budget {
        let wanted = derived(&seeds::budget(&spec.renter.0, &key.0), &program);
        ensure(wanted == Some(budget), || {
            format!("{key}, which posted the order, is no session key of {}", spec.renter)
        })?;
    }
    let renter = spec.renter;
    let expected = derived(&seeds::order(&renter.0, &post.nonce.to_le_bytes()), &program);
    ensure(expected == Some(body.order.address) && address.0 == body.order.address.0, || {
        format!("the order {} is not the one that renter {renter} signed", body.order.address)
    })?;
    let rate_cap = sum("the order's rate", arithmetic::rate(post.price_cap_uusd, body.order.feed_uusd_per_atl))?;
    let active = body.order.active_at_s.unwrap_or(i64::MAX);
    ensure(active >= body.order.posted_at_s, || "the order was active before it was posted".into())?;
    let escrow = sum("the escrow", worst_case(rate_cap, post.devices, post.duration_s, body.order.fee_bps))?;
    let mut order = SignedOrder { renter, post, rate_cap, duration_s: post.duration_s, escrow, extensions: 0 };
    read_extensions(body, &mut order)?;
    Ok((order, spec))
}

/// The specification whose root the order names, as its signer signed it.
fn open_spec(body: &ReceiptBody, post: &PostOrder) -> Result<JobSpec, Invalid> {
    let signed = SignedSpec { bytes: base64("the specification", &body.spec.bytes)?, signature: body.spec.signature };
    ensure(signed.root().0 == post.spec_root, || {
        "the job specification is not the one whose root stands in the renter's order".into()
    })?;
    signed.open().map_err(|error| Invalid(error.to_string()))
}

/// Adds what the renter's own transactions lengthened the order by, each of them once.
fn read_extensions(body: &ReceiptBody, order: &mut SignedOrder) -> Result<(), Invalid> {
    let mut names = BTreeSet::new();
    for (at, text) in (1..).zip(&body.order.extensions) {
        let name = format!("extension {at}");
        let decoded =
            transaction::decode(&base64(&name, text)?).map_err(|error| Invalid(format!("{name}: {error}")))?;
        ensure(decoded.signatures.first().is_some_and(|name| names.insert(name.0)), || {
            format!("{name}: its transaction comes twice")
        })?;
        let found = extensions(&decoded, &ChainAddress(body.network.program_id.0));
        ensure(!found.is_empty(), || format!("{name}: its transaction lengthens no order on this network's program"))?;
        // The renter may lengthen several of its orders at once.
        let own: Vec<&Extension> = found.iter().filter(|one| one.order.0 == body.order.address.0).collect();
        ensure(!own.is_empty(), || format!("{name}: it is of another order"))?;
        for extension in own {
            ensure(extension.renter.0 == order.renter.0, || format!("{name}: it is not signed by the renter"))?;
            check_extension(extension, order, body.order.fee_bps, &name)?;
            order.lengthen(extension.seconds, extension.escrow, &name)?;
        }
        order.extensions += 1;
    }
    if let Some(unshown) = &body.order.unshown {
        check_unshown(unshown, order, body.order.fee_bps)?;
        order.lengthen(unshown.seconds, unshown.escrow.0, UNSHOWN)?;
    }
    ensure(order.extensions == 0 && body.order.unshown.is_none() || body.order.active_at_s.is_some(), || {
        "an order that never became active was lengthened".into()
    })
}

/// What is escrowed for added time is the worst case of some of the order's devices, and one unit.
fn check_extension(extension: &Extension, order: &SignedOrder, fee_bps: u16, name: &str) -> Result<(), Invalid> {
    let of = |devices| {
        let worst = sum(name, worst_case(order.rate_cap, devices, extension.seconds, fee_bps))?;
        sum(name, arithmetic::add(worst, 1))
    };
    // Worst cases grow with the number of devices: look for the one that fits by halves.
    let (mut low, mut high) = (1, order.post.devices);
    while low < high {
        let middle = low + (high - low) / 2;
        if of(middle)? < extension.escrow { low = middle + 1 } else { high = middle }
    }
    ensure(extension.seconds > 0 && of(low)? == extension.escrow, || {
        format!("{name}: {} s at the order's highest rate do not cost {}", extension.seconds, Atl(extension.escrow))
    })
}

/// What is not shown is held to what the program asks of every extension: one second of one device at the least, and at
/// most as many extensions of all devices as there are seconds, each of which costs one unit more, and one for rounding.
fn check_unshown(unshown: &UnshownRecord, order: &SignedOrder, fee_bps: u16) -> Result<(), Invalid> {
    let of = |devices, units: u32| {
        let worst = sum(UNSHOWN, worst_case(order.rate_cap, devices, unshown.seconds, fee_bps))?;
        sum(UNSHOWN, arithmetic::add(worst, u64::from(units)))
    };
    let (least, most) = (of(1, 1)?, of(order.post.devices, unshown.seconds.saturating_mul(2))?);
    ensure(unshown.seconds > 0 && (least..=most).contains(&unshown.escrow.0), || {
        format!("{UNSHOWN}: {} s at the order's highest rate do not cost {}", unshown.seconds, unshown.escrow)
    })
}

fn check_spec(body: &ReceiptBody, spec: &JobSpec, order: &SignedOrder) -> Result<(), Invalid> {
    ensure(spec.order == body.order.address, || "the specification names another order".into())?;
    ensure(spec.devices == order.post.devices, || "specification and order ask for different numbers of devices".into())
}

type Epochs<'a> = BTreeMap<u64, &'a EpochRecord>;

fn check_epochs(body: &ReceiptBody, pinned: Digest) -> Result<Epochs<'_>, Invalid> {
    let mut epochs = BTreeMap::new();
    for epoch in &body.epochs {
        let index = epoch.index;
        ensure(epochs.insert(index, epoch).is_none(), || format!("epoch {index} comes twice"))?;
        let message = network::vote_message(&pinned.0, index, &epoch.root.0);
        let mut voters = BTreeSet::new();
        for vote in &epoch.votes {
            let seated = body.network.attestors.seats.iter().any(|seat| seat.key == vote.key);
            ensure(seated, || format!("epoch {index}: the voter {} holds no seat", vote.key))?;
            ensure(voters.insert(vote.key), || format!("epoch {index}: the voter {} is counted twice", vote.key))?;
            vote.key
                .verify_raw(&message, &vote.signature)
                .map_err(|error| Invalid(format!("epoch {index}: a vote for its root does not hold: {error}")))?;
        }
        let threshold = usize::from(body.network.attestors.threshold);
        ensure(voters.len() >= threshold, || {
            format!("epoch {index}: {} of the {threshold} votes that make a root final", voters.len())
        })?;
    }
    Ok(epochs)
}

fn check_leases(body: &ReceiptBody, order: &SignedOrder, epochs: &Epochs<'_>) -> Result<(), Invalid> {
    let mut addresses = BTreeSet::new();
    for (at, lease) in body.leases.iter().enumerate() {
        let name = format!("lease {}", lease.n);
        ensure(usize::from(lease.n) == at, || format!("{name} stands in the place of lease {at}: one is missing"))?;
        ensure(addresses.insert(lease.address), || format!("{name} has the address of an earlier lease"))?;
        check_identity(body, lease, &name)?;
        check_terms(body, lease, order, &name)?;
        if let Some(leaf) = &lease.attested {
            check_leaf(lease, leaf, epochs, &name)?;
        }
    }
    Ok(())
}

fn check_identity(body: &ReceiptBody, lease: &LeaseRecord, name: &str) -> Result<(), Invalid> {
    let program = body.network.program_id;
    let page = derived(&seeds::page(&lease.supplier.0, &lease.page_no.to_le_bytes()), &program);
    ensure(page == Some(lease.page), || format!("{name}: the page {} is not its supplier's", lease.page))?;
    let n = lease.n.to_le_bytes();
    let seeds = seeds::lease(&body.order.address.0, &lease.page.0, &n);
    ensure(derived(&seeds, &program) == Some(lease.address), || {
        format!("{name}: the address {} does not follow from order, page and number", lease.address)
    })?;
    let ascending = lease.slots.windows(2).all(|pair| pair[0] < pair[1]);
    let inside = lease.slots.last().is_some_and(|&last| usize::from(last) < SLOTS_MAX);
    ensure(ascending && inside && lease.mask != 0, || format!("{name}: its slots or devices are none of a page"))?;
    ensure(lease.workers.len() == lease.slots.len(), || format!("{name}: not one worker for each slot"))
}

fn check_terms(body: &ReceiptBody, lease: &LeaseRecord, order: &SignedOrder, name: &str) -> Result<(), Invalid> {
    ensure(lease.ask.0 <= order.post.price_cap_uusd, || {
        format!(
            "{name}: the ask of {} is above the {} micro-USD the renter signed",
            lease.ask, order.post.price_cap_uusd
        )
    })?;
    let rate = sum(name, arithmetic::rate(lease.ask.0, body.order.feed_uusd_per_atl))?;
    ensure(rate == lease.rate, || format!("{name}: ask and feed give a rate of {rate}, not {}", lease.rate))?;
    let Some(active) = body.order.active_at_s else {
        return ensure(lease.attested.is_none(), || format!("{name}: it served an order that never became active"));
    };
    let latest = active.saturating_add(i64::from(order.duration_s));
    ensure(lease.start_s >= active && lease.end_s <= latest && lease.start_s <= lease.end_s, || {
        format!("{name}: it does not lie within the time that the renter ordered")
    })?;
    ensure(lease.released_at_s.is_none_or(|at| at >= body.order.posted_at_s), || {
        format!("{name}: it was released before its order was posted")
    })
}

fn check_leaf(lease: &LeaseRecord, said: &AttestedLeaf, epochs: &Epochs<'_>, name: &str) -> Result<(), Invalid> {
    let Some(epoch) = epochs.get(&said.epoch) else {
        return refuse(format!("{name}: the root of epoch {} is missing", said.epoch));
    };
    let leaf = Leaf {
        lease: lease.address.0,
        device_seconds: said.device_seconds,
        until: said.until_s,
        flags: said.flags,
        slots_root: said.slots_root.0,
    };
    let path: Vec<[u8; 32]> = said.path.iter().map(|hash| hash.0).collect();
    let root = merkle::root_of_path(sha256, leaf.hash(sha256), said.leaf_index, Hashes::new(&path));
    ensure(root == Some(epoch.root.0), || {
        format!("{name}: what it served does not stand under the attested root of epoch {}", said.epoch)
    })?;
    let is_final = said.flags & FLAG_FINAL != 0;
    ensure(is_final != lease.unfinished, || format!("{name}: its leaf is not the final one, or it says so and it is"))?;
    let devices = u64::from(lease.mask.count_ones()) * lease.slots.len() as u64;
    let stop = lease.released_at_s.unwrap_or(lease.end_s).min(lease.end_s);
    let most = arithmetic::seconds_between(lease.start_s, stop).saturating_mul(devices);
    ensure(said.device_seconds <= most, || {
        format!(
            "{name}: {} device-seconds, and at most {most} lie between its start and its release",
            said.device_seconds
        )
    })
}

fn check_money(body: &ReceiptBody, order: &SignedOrder) -> Result<(), Invalid> {
    let bps = body.order.fee_bps;
    let escrow = order.escrow;
    let (mut paid, mut fees, mut spent) = (0, 0, 0);
    for lease in &body.leases {
        let seconds = lease.attested.as_ref().map_or(0, |leaf| leaf.device_seconds);
        let pay = sum("the pay", Pay::of(lease.rate, seconds, bps))?;
        paid = sum("the pay", arithmetic::add(paid, pay.supplier()))?;
        fees = sum("the fees", pay.fees().and_then(|side| arithmetic::add(fees, side)))?;
        spent = sum("the pay", pay.renter().and_then(|side| arithmetic::add(spent, side)))?;
    }
    let Some(refunded) = escrow.checked_sub(spent) else {
        return refuse(format!("the leases cost {}, more than the escrow of {}", Atl(spent), Atl(escrow)));
    };
    let split = FeeSplit::of(fees);
    let computed = MoneyRecord {
        escrow: Atl(escrow),
        paid: Atl(paid),
        refunded: Atl(refunded),
        fees: Atl(fees),
        burned: Atl(split.burned),
        treasury: Atl(split.treasury),
    };
    let said = &body.money;
    for (name, said, is) in [
        ("escrow", said.escrow, computed.escrow),
        ("paid", said.paid, computed.paid),
        ("refunded", said.refunded, computed.refunded),
        ("fees", said.fees, computed.fees),
        ("burned", said.burned, computed.burned),
        ("treasury", said.treasury, computed.treasury),
    ] {
        ensure(said == is, || format!("{name}: it says {said}, and rates and attested seconds give {is}"))?;
    }
    // Follows from the sums above; asserted because it is the law that everything else serves.
    ensure(paid.checked_add(refunded).and_then(|s| s.checked_add(fees)) == Some(escrow), || {
        "money is not conserved: escrow is not paid + refunded + fees".into()
    })
}

fn account(body: &ReceiptBody, order: &SignedOrder, spec: &JobSpec) -> (Vec<String>, Vec<String>, Vec<String>) {
    let set = &body.network.attestors;
    let served: u64 =
        body.leases.iter().filter_map(|lease| lease.attested.as_ref()).map(|leaf| leaf.device_seconds).sum();
    let proven = vec![
        format!("program, chain and {} attestor seat(s) are those of the pinned network root", set.seats.len()),
        format!("renter {} signed order {} and job specification `{}`", order.renter, body.order.address, spec.name),
        "the operator that signed this receipt is a solver named in that order".to_owned(),
        format!(
            "{} lease(s) of that order, {served} device-seconds served, under roots with enough votes",
            body.leases.len()
        ),
        "paid, refunded, fees and burned follow from rates and served seconds; escrow = paid + refunded + fees"
            .to_owned(),
    ];
    let owners = owners_for_threshold(body);
    let operators = if owners == 1 { "operator" } else { "operators" };
    let word = if owners == 1 { ": trusted, not proven" } else { "" };
    let trusted = vec![
        format!("served time: attested by {owners} {operators}{word}"),
        "the job's result: reported by the operator and the job itself".to_owned(),
    ];
    let taken = match &body.order.unshown {
        None => format!("that the chain took the {} extension(s) shown, and no other", order.extensions),
        Some(unshown) => format!(
            "that the chain took the {} extension(s) shown, and others that added {} s and {} to the escrow: their \
             transactions are not shown, so nothing here says that the renter signed them; the order's history on the chain does",
            order.extensions, unshown.seconds, unshown.escrow
        ),
    };
    let mut given = vec![
        format!("{} transaction ids", body.transactions.len()),
        taken,
        format!(
            "price feed {} micro-USD per ATL and fee of {} basis points when posted",
            body.order.feed_uusd_per_atl, body.order.fee_bps
        ),
        "that no further lease followed the last one: the refund in the renter's own account shows it".to_owned(),
        "asks (none above the renter's limit), times of activity and release, workers behind the slots".to_owned(),
    ];
    let unfinished: Vec<String> =
        body.leases.iter().filter(|lease| lease.unfinished).map(|lease| lease.n.to_string()).collect();
    if !unfinished.is_empty() {
        given.push(format!(
            "that nobody attested the end of lease(s) {} in time, and the chain closed them on what was booked before",
            unfinished.join(", ")
        ));
    }
    (proven, trusted, given)
}

/// The fewest owners whose seats together reach the threshold.
fn owners_for_threshold(body: &ReceiptBody) -> usize {
    let mut seats: BTreeMap<PublicKey, usize> = BTreeMap::new();
    for seat in &body.network.attestors.seats {
        *seats.entry(seat.owner).or_default() += 1;
    }
    let mut counts: Vec<usize> = seats.into_values().collect();
    counts.sort_unstable_by(|a, b| b.cmp(a));
    let mut votes = 0;
    counts
        .iter()
        .take_while(|&&count| {
            let short = votes < usize::from(body.network.attestors.threshold);
            votes += count;
            short
        })
        .count()
}

#[cfg(test)]
#[path = "verify_tests.rs"]
pub(crate) mod tests;
