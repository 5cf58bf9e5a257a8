use super::*;
use std::cell::Cell;
use std::sync::LazyLock;

use atoll_api::receipt::{
    AttestorSet, OrderRecord, RECEIPT_VERSION, ResultRecord, SeatRecord, SpecRecord, TransactionRecord, VoteRecord,
};
use atoll_chain::address::Hash;
use atoll_chain::keypair::Keypair;
use atoll_chain::transaction::{AccountMeta, Instruction as ChainInstruction};
use atoll_domain::id::{JobId, WorkerId};
use atoll_domain::job::{Bundle, ClusterKind, JobOutcome, JobState, PackRef};
use atoll_domain::key::{SecretKey, Signature};
use atoll_domain::lease::ReleaseReason;
use atoll_domain::money::UsdMicrosPerHour;
use atoll_domain::time::UnixMs;
use atoll_interface::PROGRAM_ID;
use atoll_interface::merkle::{padded_len, root_and_path};
use serde_json::Value;

const FEED: u64 = 250_000;
const POSTED: i64 = 1_000;
const ACTIVE: i64 = 1_010;

pub(crate) fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

fn b64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn network() -> NetworkRecord {
    let seats = vec![SeatRecord { owner: key(10).public(), key: key(11).public() }];
    let attestors = AttestorSet { threshold: 1, seats };
    let (program_id, genesis_hash) = (PublicKey(PROGRAM_ID), PublicKey([5; 32]));
    NetworkRecord { program_id, genesis_hash, attestors, attestor_changes: vec![] }
}

pub(crate) fn pinned() -> Digest {
    let seat = [key(10).public().0, key(11).public().0].concat().try_into().unwrap();
    Digest(network::network_root(sha256, &PROGRAM_ID, &[5; 32], 1, &[seat]))
}

fn spec(order: Address) -> JobSpec {
    JobSpec {
        version: 1,
        name: "digits".into(),
        network: pinned(),
        renter: key(1).public(),
        budget: None,
        order,
        kind: ClusterKind::Ray,
        model: "cpu".into(),
        devices: 3,
        pack: PackRef { name: "ray-torch".into(), sha256: Digest::of(b"pack") },
        bundle: Bundle { sha256: Digest::of(b"code"), bytes: 4 },
        entry: "python train.py".into(),
        env: BTreeMap::new(),
        checkpoints: true,
        seconds_max: 3600,
    }
}

/// A signed `post_order`; in most receipts by the renter (1), with the order in the budget's place.
fn order_transaction(order: Address, spec_root: Digest, by: u8, budget: Address) -> Vec<u8> {
    let post = PostOrder {
        nonce: 7,
        models: [1, 0, 0, 0],
        devices: 3,
        devices_min: 3,
        devices_per_worker: 1,
        tier: 0,
        class: 0,
        region: 0,
        price_cap_uusd: 200_000,
        duration_s: 3600,
        fill_s: 60,
        spec_root: spec_root.0,
        fill_root: [0; 32],
        solvers: [key(20).public().0, [0; 32], [0; 32]],
    };
    let signer = key(by).public().0;
    let accounts = PostOrderAccounts {
        authority: signer,
        payer: signer,
        order: order.0,
        vault: [31; 32],
        source: [32; 32],
        budget: budget.0,
        config: [33; 32],
        catalogue: [34; 32],
        feed: [35; 32],
        mint: [36; 32],
    };
    let metas = accounts.metas().map(|meta| AccountMeta {
        address: ChainAddress(meta.address),
        signer: meta.signer,
        writable: meta.writable,
    });
    let instruction = ChainInstruction {
        program: ChainAddress(PROGRAM_ID),
        accounts: metas.to_vec(),
        data: post.encode().unwrap().as_slice().to_vec(),
    };
    let wallet = Keypair::from_seed(&[by; 32]);
    transaction::sign(&[instruction], &wallet, &[], &Hash([9; 32])).unwrap().bytes().to_vec()
}

/// What ten more minutes of all three devices cost at most.
fn extension_escrow() -> u64 {
    worst(3, 600) + 1
}

/// A signed `extend_order`; in a true receipt by the renter (1), of the order, over ten minutes.
fn extension(by: u8, order: Address, seconds: u32, escrow: u64) -> String {
    let wallet = Keypair::from_seed(&[by; 32]);
    let data = atoll_interface::instruction::ExtendOrder { seconds, escrow };
    let (order, source) = (ChainAddress(order.0), ChainAddress([32; 32]));
    let extend = atoll_chain::market::instruction::extend_order(wallet.address(), order, source, &data);
    b64(transaction::sign(&[extend], &wallet, &[], &Hash([9; 32])).unwrap().bytes())
}

fn lease(order: Address, n: u16, released_at_s: Option<i64>) -> LeaseRecord {
    let supplier = key(40 + u8::try_from(n).unwrap()).public();
    let program = PublicKey(PROGRAM_ID);
    let page = derived(&seeds::page(&supplier.0, &[0, 0]), &program).unwrap();
    let ask = 100_000 + u64::from(n) * 10_000;
    LeaseRecord {
        address: derived(&seeds::lease(&order.0, &page.0, &n.to_le_bytes()), &program).unwrap(),
        n,
        refill: n == 1,
        supplier,
        page,
        page_no: 0,
        slots: vec![0],
        workers: vec![WorkerId::from_random([u8::try_from(n).unwrap(); 16])],
        mask: 1,
        ask: UsdMicrosPerHour(ask),
        rate: arithmetic::rate(ask, FEED).unwrap(),
        start_s: ACTIVE,
        // The second one went along with the extension.
        end_s: ACTIVE + 3600 + i64::from(n) * 600,
        released_at_s,
        reason: released_at_s.map(|_| ReleaseReason::Done),
        unfinished: false,
        attested: None,
    }
}

/// Two leases, the second a refill, attested in one epoch.
pub(crate) fn body() -> ReceiptBody {
    static TRUE: LazyLock<ReceiptBody> = LazyLock::new(true_body);
    TRUE.clone()
}

fn true_body() -> ReceiptBody {
    let order = derived(&seeds::order(&key(1).public().0, &7_u64.to_le_bytes()), &PublicKey(PROGRAM_ID)).unwrap();
    let signed = SignedSpec::sign(&spec(order), &key(1)).unwrap();
    let mut leases: Vec<LeaseRecord> = (0..2).map(|n| lease(order, n, Some(ACTIVE + 100))).collect();
    let leaves: Vec<Leaf> = leases
        .iter()
        .map(|lease| Leaf {
            lease: lease.address.0,
            device_seconds: 50 + u64::from(lease.n),
            until: ACTIVE + 100,
            flags: FLAG_FINAL,
            slots_root: [8; 32],
        })
        .collect();
    let mut root = [0; 32];
    for (at, lease) in leases.iter_mut().enumerate() {
        let mut scratch: Vec<[u8; 32]> = leaves.iter().map(|leaf| leaf.hash(sha256)).collect();
        scratch.resize(padded_len(leaves.len()), [0; 32]);
        let mut path = [[0; 32]; 20];
        let (top, depth) = root_and_path(sha256, &mut scratch, at, &mut path).unwrap();
        root = top;
        lease.attested = Some(AttestedLeaf {
            device_seconds: leaves[at].device_seconds,
            until_s: leaves[at].until,
            flags: leaves[at].flags,
            slots_root: Digest(leaves[at].slots_root),
            epoch: 12,
            leaf_index: u32::try_from(at).unwrap(),
            path: path[..depth].iter().map(|&hash| Digest(hash)).collect(),
        });
    }
    let vote = key(11).sign_raw(&network::vote_message(&pinned().0, 12, &root));
    let votes = vec![VoteRecord { key: key(11).public(), signature: vote }];
    let mut body = ReceiptBody {
        version: RECEIPT_VERSION,
        network: network(),
        order: OrderRecord {
            address: order,
            transaction: b64(&order_transaction(order, signed.root(), 1, order)),
            extensions: vec![extension(1, order, 600, extension_escrow())],
            unshown: None,
            feed_uusd_per_atl: FEED,
            fee_bps: 25,
            posted_at_s: POSTED,
            active_at_s: Some(ACTIVE),
        },
        spec: SpecRecord { bytes: b64(&signed.bytes), signature: signed.signature },
        leases,
        epochs: vec![EpochRecord { index: 12, root: Digest(root), votes }],
        money: MoneyRecord {
            escrow: Atl(0),
            paid: Atl(0),
            refunded: Atl(0),
            fees: Atl(0),
            burned: Atl(0),
            treasury: Atl(0),
        },
        result: ResultRecord {
            job: JobId::from_random([3; 16]),
            state: JobState::Succeeded,
            outcome: Some(JobOutcome::Succeeded),
            reason: "the command exited with status 0".into(),
            attempts: 2,
            step: Some(400),
            accuracy_ppm: Some(951_000),
            resumed_from_step: Some(200),
            created: UnixMs(1_000_000),
            ended: UnixMs(1_200_000),
            checked: CHECKED.into(),
            fields: BTreeMap::new(),
        },
        transactions: vec![TransactionRecord { what: "post_order".into(), signature: Signature([1; 64]) }],
    };
    body.money = sums(&body);
    body
}

fn sums(body: &ReceiptBody) -> MoneyRecord {
    let rate_cap = arithmetic::rate(200_000, FEED).unwrap();
    let escrow = worst_case(rate_cap, 3, 3600, 25).unwrap() + extension_escrow();
    let pays: Vec<Pay> = body
        .leases
        .iter()
        .map(|lease| Pay::of(lease.rate, lease.attested.as_ref().unwrap().device_seconds, 25).unwrap())
        .collect();
    let fees: u64 = pays.iter().map(|pay| pay.fees().unwrap()).sum();
    let spent: u64 = pays.iter().map(|pay| pay.renter().unwrap()).sum();
    MoneyRecord {
        escrow: Atl(escrow),
        paid: Atl(pays.iter().map(|pay| pay.supplier()).sum()),
        refunded: Atl(escrow - spent),
        fees: Atl(fees),
        burned: Atl(fees / 2),
        treasury: Atl(fees - fees / 2),
    }
}

fn worst(devices: u32, seconds: u32) -> u64 {
    worst_case(arithmetic::rate(200_000, FEED).unwrap(), devices, seconds, 25).unwrap()
}

#[test]
fn an_extension_after_a_device_was_given_back_is_paid_for_the_rest() {
    let mut body = body();
    body.order.extensions.push(extension(1, body.order.address, 60, 1 + worst(2, 60)));
    body.money.escrow.0 += 1 + worst(2, 60);
    body.money.refunded.0 += 1 + worst(2, 60);
    let verified = check(&body).unwrap();
    assert!(verified.given.iter().any(|line| line.contains("2 extension(s)")), "{:?}", verified.given);
}

fn unshown(seconds: u32, escrow: u64) -> Option<UnshownRecord> {
    Some(UnshownRecord { seconds, escrow: Atl(escrow) })
}

#[test]
fn an_extension_that_cannot_be_shown_is_given_and_said() {
    let mut body = body();
    // The one extension was made by another program's call.
    body.order.extensions.clear();
    body.order.unshown = unshown(600, extension_escrow());
    let verified = check(&body).unwrap();
    let said = |words: &str| verified.given.iter().any(|line| line.contains(words));
    assert!(said("the 0 extension(s) shown, and others that added 600 s"), "{:?}", verified.given);
    assert!(said("nothing here says that the renter signed them"), "{:?}", verified.given);
}

#[test]
fn a_transaction_that_lengthens_other_orders_of_the_renter_as_well_counts_for_its_own() {
    let mut body = body();
    let wallet = Keypair::from_seed(&[1; 32]);
    let extend = |order: Address, seconds, escrow| {
        let data = atoll_interface::instruction::ExtendOrder { seconds, escrow };
        let (order, source) = (ChainAddress(order.0), ChainAddress([32; 32]));
        atoll_chain::market::instruction::extend_order(wallet.address(), order, source, &data)
    };
    let both = [extend(PublicKey([1; 32]), 7, 7), extend(body.order.address, 600, extension_escrow())];
    let signed = transaction::sign(&both, &wallet, &[], &Hash([9; 32])).unwrap();
    body.order.extensions = vec![b64(signed.bytes())];
    check(&body).unwrap();
}

#[test]
fn an_order_of_a_session_key_is_its_wallets_only_where_the_budget_follows_from_both() {
    let of = |wallet: u8, session: u8| {
        derived(&seeds::budget(&key(wallet).public().0, &key(session).public().0), &PublicKey(PROGRAM_ID)).unwrap()
    };
    let bought = |signs: u8, posts: u8, budget: Address| {
        let mut body = body();
        let spec = JobSpec { budget: Some(key(2).public()), ..spec(body.order.address) };
        let signed = SignedSpec::sign(&spec, &key(signs)).unwrap();
        body.spec = SpecRecord { bytes: b64(&signed.bytes), signature: signed.signature };
        let posted = order_transaction(body.order.address, signed.root(), posts, budget);
        body.order.transaction = b64(&posted);
        check(&body).map(|verified| verified.renter).map_err(|invalid| invalid.0)
    };
    assert_eq!(bought(2, 2, of(1, 2)), Ok(key(1).public()));
    let refused = |found: Result<PublicKey, String>, words: &str| {
        let why = found.unwrap_err();
        assert!(why.contains(words), "{why}");
    };
    refused(bought(2, 2, of(3, 2)), "is no session key of");
    refused(bought(2, 2, body().order.address), "is no session key of");
    refused(bought(2, 3, of(1, 3)), "another renter");
    refused(bought(1, 2, of(1, 2)), "not signed");
}

fn check(body: &ReceiptBody) -> Result<Verified, Invalid> {
    verify(&Receipt::seal(body, &key(20)).unwrap(), pinned())
}

#[test]
fn a_true_receipt_holds_and_says_on_what() {
    let verified = check(&body()).unwrap();
    assert_eq!(verified.renter, key(1).public());
    assert_eq!(verified.trusted[0], "served time: attested by 1 operator: trusted, not proven");
    assert!(verified.given[0].contains("transaction ids"));
    assert!(verified.proven.iter().any(|line| line.contains("101 device-seconds")), "{:?}", verified.proven);
}

/// A receipt may say of a lease that nobody attested its end, and must when that is so.
#[test]
fn a_lease_that_was_closed_without_its_last_leaf_says_so() {
    let mut body = body();
    body.leases[1].unfinished = true;
    assert!(check(&body).unwrap_err().0.contains("not the final one"), "its leaf is final");
    body.leases[1].attested = None;
    let spent = |lease: &LeaseRecord| {
        let seconds = lease.attested.as_ref().map_or(0, |leaf| leaf.device_seconds);
        Pay::of(lease.rate, seconds, 25).unwrap()
    };
    let pay = spent(&body.leases[0]);
    let (escrow, fees) = (body.money.escrow.0, pay.fees().unwrap());
    body.money = MoneyRecord {
        paid: Atl(pay.supplier()),
        refunded: Atl(escrow - pay.renter().unwrap()),
        fees: Atl(fees),
        burned: Atl(fees / 2),
        treasury: Atl(fees - fees / 2),
        ..body.money
    };
    let verified = check(&body).unwrap();
    assert!(verified.given.iter().any(|line| line.contains("the end of lease(s) 1 in time")), "{:?}", verified.given);
}

#[test]
fn another_network_or_signer_is_refused() {
    let receipt = Receipt::seal(&body(), &key(20)).unwrap();
    let other = verify(&receipt, Digest::of(b"other")).unwrap_err();
    assert!(other.0.contains("another network"), "{other}");
    let stranger = verify(&Receipt::seal(&body(), &key(21)).unwrap(), pinned()).unwrap_err();
    assert!(stranger.0.contains("not among the solver keys"), "{stranger}");
    let mut changed = receipt.clone();
    changed.body = changed.body.replace("951000", "999000");
    assert!(verify(&changed, pinned()).unwrap_err().0.contains("signature"));
}

/// One change of the body that the operator itself signs, and a word of the reason it is refused with.
#[test]
fn a_lying_operator_is_refused_with_the_reason() {
    type Lie = (&'static str, fn(&mut ReceiptBody));
    let lies: Vec<Lie> = vec![
        ("another network", |b| b.network.genesis_hash = PublicKey([6; 32])),
        ("another network", |b| b.network.attestors.threshold = 2),
        ("another network", |b| b.network.attestors.seats[0].owner = key(99).public()),
        ("attestor set changed", |b| b.network.attestor_changes.push(Value::Null)),
        ("not the one that renter", |b| b.order.address = PublicKey([1; 32])),
        ("transaction", |b| b.order.transaction = b64(b"nothing")),
        ("renter's order", |b| b.spec.bytes = b64(b"{}")),
        ("not signed by its renter", |b| b.spec.signature = key(2).sign_raw(b"x")),
        ("one is missing", |b| drop(b.leases.remove(0))),
        ("comes twice", |b| b.epochs.push(b.epochs[0].clone())),
        ("holds no seat", |b| b.epochs[0].votes[0].key = key(2).public()),
        ("counted twice", |b| {
            let again = b.epochs[0].votes[0].clone();
            b.epochs[0].votes.push(again);
        }),
        ("does not hold", |b| b.epochs[0].root = Digest::of(b"root")),
        ("does not hold", |b| b.epochs[0].votes[0].signature = Signature([1; 64])),
        ("0 of the 1 votes", |b| b.epochs[0].votes.clear()),
        ("root of epoch 12 is missing", |b| b.epochs.clear()),
        ("does not follow", |b| b.leases[1].address = PublicKey([1; 32])),
        ("not its supplier's", |b| b.leases[1].supplier = key(2).public()),
        ("not its supplier's", |b| b.leases[1].page_no = 1),
        ("none of a page", |b| b.leases[1].mask = 0),
        ("not one worker", |b| b.leases[1].workers.clear()),
        ("give a rate of", |b| b.leases[1].ask.0 -= 10_000),
        ("give a rate of", |b| b.leases[1].rate += 1),
        ("above the", |b| b.leases[1].ask.0 = 200_001),
        ("within the time", |b| b.leases[1].end_s += 1),
        ("within the time", |b| b.order.extensions.clear()),
        ("comes twice", |b| b.order.extensions.push(b.order.extensions[0].clone())),
        ("not base64", |b| b.order.extensions[0].insert(0, '!')),
        ("extension 1", |b| b.order.extensions[0] = b64(b"nothing")),
        ("lengthens no order", |b| b.order.extensions[0] = b.order.transaction.clone()),
        ("not signed by the renter", |b| {
            b.order.extensions[0] = extension(2, b.order.address, 600, extension_escrow());
        }),
        ("of another order", |b| {
            b.order.extensions[0] = extension(1, PublicKey([1; 32]), 600, extension_escrow());
        }),
        ("do not cost", |b| b.order.extensions[0] = extension(1, b.order.address, 600, extension_escrow() + 1)),
        ("do not cost", |b| b.order.extensions[0] = extension(1, b.order.address, 0, 1)),
        ("longer than an order may be", |b| {
            b.order.extensions[0] = extension(1, b.order.address, DURATION_S_MAX, 1 + worst(3, DURATION_S_MAX));
        }),
        // What is not shown: too cheap, too dear, for nothing, for ever, and of an order that never ran.
        ("do not cost", |b| b.order.unshown = unshown(60, worst(1, 60))),
        ("do not cost", |b| b.order.unshown = unshown(60, worst(3, 60) + 121)),
        ("do not cost", |b| b.order.unshown = unshown(0, 1)),
        ("longer than an order may be", |b| b.order.unshown = unshown(DURATION_S_MAX, worst(3, DURATION_S_MAX))),
        ("never became active", |b| {
            (b.order.active_at_s, b.order.unshown) = (None, unshown(600, worst(3, 600)));
            b.order.extensions.clear();
        }),
        ("escrow: it says", |b| b.order.unshown = unshown(60, 1 + worst(3, 60))),
        // One more that the renter signed and the chain never took, with a refund that never came.
        ("escrow: it says", |b| b.order.extensions.push(extension(1, b.order.address, 60, 1 + worst(3, 60)))),
        ("before its order", |b| b.leases[1].released_at_s = Some(1)),
        ("lie between", |b| b.leases[1].released_at_s = Some(ACTIVE + 10)),
        ("does not stand under", |b| b.leases[1].attested.as_mut().unwrap().device_seconds += 1),
        ("does not stand under", |b| b.leases[1].attested.as_mut().unwrap().flags = 3),
        ("does not stand under", |b| b.leases[1].attested.as_mut().unwrap().leaf_index = 2),
        ("does not stand under", |b| b.leases[1].attested.as_mut().unwrap().path[0] = Digest::of(b"x")),
        ("paid: it says", |b| b.money.paid.0 += 1),
        ("refunded: it says", |b| b.money.refunded.0 -= 1),
        ("fees: it says", |b| b.money.fees.0 += 1),
        ("burned: it says", |b| b.money.burned.0 += 1),
        ("treasury: it says", |b| b.money.treasury.0 += 1),
        ("escrow: it says", |b| b.money.escrow.0 += 1),
        ("paid: it says", |b| b.leases[1].attested = None),
        ("rate", |b| b.order.feed_uusd_per_atl += 1),
        ("do not cost", |b| b.order.fee_bps = 30),
        ("only claim", |b| b.result.checked = "work: verified".into()),
        ("not final", |b| b.result.state = JobState::Running),
        ("before it was posted", |b| b.order.active_at_s = Some(1)),
        ("never became active", |b| b.order.active_at_s = None),
        ("version", |b| b.version = 2),
    ];
    for (at, (word, lie)) in lies.into_iter().enumerate() {
        let mut body = body();
        lie(&mut body);
        match check(&body) {
            Err(refused) => assert!(refused.0.contains(word), "lie {at}: expected `{word}`, got `{refused}`"),
            Ok(_) => panic!("lie {at} (`{word}`) was believed"),
        }
    }
}

/// Fields that a receipt only reports; everything else must not change unnoticed even when the operator signs the change.
const REPORTED: [&str; 17] = [
    "/order/posted_at_s",
    "/order/active_at_s",
    "/leases/*/refill",
    "/leases/*/workers",
    "/leases/*/reason",
    "/leases/*/released_at_s",
    "/leases/*/start_s",
    "/leases/*/end_s",
    "/leases/*/slots",
    "/leases/*/mask",
    "/transactions",
    "/result/job",
    "/result/outcome",
    "/result/state",
    "/result/reason",
    "/result/fields",
    "/result/",
];

#[test]
fn every_field_that_is_not_listed_as_reported_is_bound() {
    let whole = serde_json::to_value(body()).unwrap();
    let mut paths = Vec::new();
    leaves(&whole, "", &mut paths);
    let believed = Cell::new(0);
    for path in &paths {
        let shape: String = path
            .split('/')
            .map(|part| if part.parse::<u32>().is_ok() { "*" } else { part })
            .collect::<Vec<_>>()
            .join("/");
        let mut changed = whole.clone();
        bend(changed.pointer_mut(path).unwrap());
        let Ok(body) = serde_json::from_value::<ReceiptBody>(changed) else { continue };
        if check(&body).is_ok() {
            believed.set(believed.get() + 1);
            assert!(REPORTED.iter().any(|reported| shape.starts_with(reported)), "{path} changed unnoticed");
        }
    }
    assert!(believed.get() > 0 && paths.len() > 80, "{} of {}", believed.get(), paths.len());
}

fn leaves(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(name, inner)| leaves(inner, &format!("{path}/{name}"), found))
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(at, inner)| leaves(inner, &format!("{path}/{at}"), found));
        }
        _ => found.push(path.to_owned()),
    }
}

fn bend(value: &mut Value) {
    *value = match &*value {
        Value::Number(number) => Value::from(number.as_i64().unwrap() + 1),
        Value::Bool(yes) => Value::from(!yes),
        Value::Null => Value::from(1),
        Value::String(text) => {
            // Another digit or letter of the same alphabet in the middle.
            let at = text.len() / 2;
            let other = if text[at..].starts_with('2') { "3" } else { "2" };
            Value::from(format!("{}{other}{}", &text[..at], text.get(at + 1..).unwrap_or("")))
        }
        other => other.clone(),
    };
}
