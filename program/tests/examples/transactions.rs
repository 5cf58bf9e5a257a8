//! What fleets of many devices cost on the chain: transactions, their bytes, rent and fees, from transactions that the real
//! program took. Prints one JSON object of keys, each `{"value", "how"}`: `cargo xtask bench program` puts it beside the
//! compute units.

use atoll_interface::{
    Address,
    capacity::SIDE_MAX,
    instruction as ix,
    layout::{Lease, Order},
    seeds,
    settlement::Reason,
};
use atoll_market_tests::{
    Call, Party, World,
    calls::{ASK, Attested, DURATION_S, STAKE, fill_data, leaf},
    frauds::Answer,
    world::{TRANSACTION_LEN_MAX, pda},
};

/// What a signature costs on Solana without a priority fee, lamports: solana.com/docs/core/fees.
const SIGNATURE_LAMPORTS: f64 = 5_000.0;
/// Dollars a SOL, as the bars assume it.
const USD_PER_SOL: f64 = 150.0;
const LAMPORTS_PER_SOL: f64 = 1e9;
/// Devices of a worker.
const DEVICES: u8 = 8;
/// Bytes of a page's header, and of a slot.
const HEADER: usize = 136;
const SLOT: usize = 96;
/// Compute units that a transaction may ask for.
const UNITS_MAX: u32 = 1_400_000;

fn main() {
    let mut largest = 0;
    let fleet = one_supplier(&mut largest);
    let many = [(20, 62), (1_250, 1)].map(|(suppliers, workers)| fills(suppliers, workers));
    let settle = [(4, 13, 128), (2, 20, 1)].map(|(leaves, depth, devices)| {
        mixed(leaves, depth, &mut largest);
        usd(SIGNATURE_LAMPORTS / (leaves as f64 * f64::from(devices)))
    });
    let close = closing(&mut largest);
    let whole = |hours: f64, settlements: f64| {
        let signatures = 1.0 + settlements / 4.0 + close as f64 / 4.0;
        usd(signatures * SIGNATURE_LAMPORTS / (hours * f64::from(DEVICES)))
    };
    accuse(&mut largest);
    let figures = [
        (
            "fill_1250_workers_tx",
            fleet.transactions as f64,
            format!(
                "one supplier, 1,250 workers of 8 on two pages, {} CU in all; of 20 suppliers {} transactions, of 1,250 lone workers {}",
                fleet.units, many[0], many[1]
            ),
        ),
        (
            "fill_slot_cu",
            fleet.units as f64 / 1_250.0,
            "the same fill, compute units over its 1,250 workers".to_owned(),
        ),
        (
            "rent_sol_10k_gpus",
            fleet.rent as f64 / LAMPORTS_PER_SOL,
            format!("lamports of its {} leases, given back when they close", fleet.transactions),
        ),
        (
            "usd_per_gpu_hour_settle",
            settle[0],
            format!(
                "1M devices in leases of 128, 4 leases of 4 orders a transaction of one signature under a tree of 2^13, hourly, \
             {USD_PER_SOL} USD/SOL, no priority fee; 1M lone devices: 2 a transaction under 2^20, {:.1e}",
                settle[1]
            ),
        ),
        (
            "usd_per_gpu_hour_all_6h",
            whole(6.0, 6.0),
            format!(
                "8 devices: one fill, 6 settlements in batches of 4, release, close, fees and refund in {close} transactions for 4 \
             leases; settled once {:.1e}; 1 h {:.1e}, 24 h {:.1e}; the renter's own transaction is not in it",
                whole(6.0, 1.0),
                whole(1.0, 1.0),
                whole(24.0, 24.0)
            ),
        ),
        (
            "max_tx_bytes",
            largest as f64,
            "the largest of these and of a fraud case at n = 16,384; the client refuses to build more than 1,232"
                .to_owned(),
        ),
    ];
    let json: Vec<String> =
        figures.iter().map(|(key, value, how)| format!("\"{key}\":{{\"value\":{value},\"how\":\"{how}\"}}")).collect();
    println!("{{{}}}", json.join(","));
}

fn usd(lamports: f64) -> f64 {
    lamports / LAMPORTS_PER_SOL * USD_PER_SOL
}

/// What filling an order of 10,000 devices took.
struct Fleet {
    transactions: usize,
    units: u64,
    rent: u64,
}

/// One supplier with 1,250 equal workers of 8 devices: a full page and a part of the next.
fn one_supplier(largest: &mut usize) -> Fleet {
    let mut world = World::new();
    let party = Party::new(&mut world, "a");
    let second = pda(&seeds::page(&party.supplier, &1u16.to_le_bytes()));
    for (page_no, device, page, workers) in [(0, 0, party.page, 1_024), (1, 1, second, 226)] {
        let call = party.register_on(page_no, party.devices[device], ASK);
        world.must(&with_devices(call));
        repeat_slot(&mut world, page, workers);
    }
    world.must(&party.stake(2 * u64::from(DEVICES) * STAKE));
    let terms = ix::PostOrder { devices_per_worker: DEVICES, ..party.terms(10_000) };
    world.must(&party.post_with(&terms));
    let (mut units, mut rent) = (0, 0);
    for (n, page, workers) in [(0u16, party.page, 1_024), (1, second, 226)] {
        let lease = pda(&seeds::lease(&party.order(), &page, &n.to_le_bytes()));
        let bits = bitmap(workers);
        let fill = ix::FillOrder { mask: 0xff, ..fill_data(0, &bits) };
        units += world.must_with_units(&party.fill_page(party.node, page, lease, &fill), UNITS_MAX);
        rent += world.lamports(lease);
    }
    assert_eq!(world.read::<Order>(party.order()).devices_live, 10_000);
    *largest = world.largest.get().max(*largest);
    Fleet { transactions: 2, units, rent }
}

/// Bits of the first slots.
fn bitmap(slots: usize) -> Vec<u8> {
    (0..slots.div_ceil(8)).map(|byte| u8::MAX >> (8 - (slots - byte * 8).min(8))).collect()
}

/// A registration of a worker of [`DEVICES`] devices.
fn with_devices(call: Call) -> Call {
    let mut data = ix::RegisterWorker::decode(&call.data[1..]).expect("a registration");
    data.devices = DEVICES;
    Call { data: data.encode().expect("it fits").as_slice().to_vec(), ..call }
}

/// Leaves a page as many registrations of equal workers would: its first slot over and over.
fn repeat_slot(world: &mut World, page: Address, slots: u16) {
    let mut account = world.svm.get_account(&page.into()).expect("the page");
    let slot = account.data[HEADER..HEADER + SLOT].to_vec();
    account.data.truncate(HEADER);
    account.data.extend((0..slots).flat_map(|_| slot.iter().copied()));
    account.data[6..8].copy_from_slice(&slots.to_le_bytes());
    account.lamports = world.svm.minimum_balance_for_rent_exemption(account.data.len());
    world.svm.set_account(page.into(), account).expect("it is put");
}

/// Transactions that fill one order from some suppliers of equal workers: as many fills in each as fit.
fn fills(suppliers: usize, workers: usize) -> usize {
    let mut world = World::new();
    let party = Party::new(&mut world, "a");
    let bits = bitmap(workers);
    let fill = ix::FillOrder { mask: 0xff, ..fill_data(0, &bits) };
    let calls: Vec<Call> = (0..suppliers)
        .map(|number| {
            let (number, n) = (number.to_le_bytes(), u16::try_from(number).expect("few"));
            let page = pda(&[b"supplier", &number]);
            let lease = pda(&seeds::lease(&party.order(), &page, &n.to_le_bytes()));
            let mut call = party.fill_page(party.node, page, lease, &fill);
            for meta in &mut call.metas {
                meta.address = if meta.address == party.page { page } else { meta.address };
            }
            call
        })
        .collect();
    packed(&world, &calls).len()
}

/// Calls in order, as many in each transaction as fit.
fn packed<'a>(world: &World, calls: &'a [Call]) -> Vec<Vec<&'a Call>> {
    let mut packed: Vec<Vec<&Call>> = vec![vec![]];
    for call in calls {
        let last = packed.last_mut().expect("one at least");
        last.push(call);
        if world.bytes(last) > TRANSACTION_LEN_MAX {
            last.pop();
            packed.push(vec![call]);
        }
    }
    packed
}

/// Some orders of a device each, active, and a root of this depth with their leaves at its beginning.
fn leased(world: &mut World, orders: usize, depth: u32) -> (Vec<Party>, Attested) {
    let parties: Vec<Party> = (0..orders).map(|number| Party::ready(world, &number.to_string(), 1)).collect();
    for party in &parties {
        world.must(&party.post(1));
        world.must(&party.fill(0, 0, &[1]));
    }
    world.wait(i64::from(DURATION_S) + 20);
    for party in &parties {
        world.must(&party.release(party.renter, 0, Reason::Expired, 0, &[1]));
    }
    let until = world.now();
    let mut leaves = vec![leaf([1; 32], 1, 1); 1 << depth];
    for (place, party) in leaves.iter_mut().zip(&parties) {
        *place = leaf(party.lease(0), 10, until);
    }
    let tree = world.attest(&leaves);
    (parties, tree)
}

/// Settles leases of as many orders at once, in one transaction with one signature.
fn mixed(orders: usize, depth: u32, largest: &mut usize) {
    let mut world = World::new();
    let (parties, tree) = leased(&mut world, orders, depth);
    let addresses: Vec<Address> = parties.iter().map(Party::order).collect();
    world.must(&tree.settle_mixed(0, &addresses));
    for party in &parties {
        assert_eq!(world.read::<Lease>(party.lease(0)).device_seconds_paid, 10);
    }
    *largest = world.largest.get().max(*largest);
}

/// Transactions that release and close four leases and their orders, with fees and refunds, once they are settled.
fn closing(largest: &mut usize) -> usize {
    let mut world = World::new();
    let parties: Vec<Party> = (0..4).map(|number| Party::ready(&mut world, &number.to_string(), 1)).collect();
    for party in &parties {
        world.must(&party.post(1));
        world.must(&party.fill(0, 0, &[1]));
    }
    world.wait(i64::from(DURATION_S) + 20);
    let until = world.now();
    let leaves: Vec<_> = parties.iter().map(|party| leaf(party.lease(0), 10, until)).collect();
    let tree = world.attest(&leaves);
    world.must(&tree.settle_mixed(0, &parties.iter().map(Party::order).collect::<Vec<_>>()));
    let each = |call: fn(&Party) -> Call| parties.iter().map(call).collect::<Vec<_>>();
    let calls = [
        each(|party| party.release(party.node, 0, Reason::Expired, 0, &[1])),
        each(|party| party.close_lease(0)),
        each(Party::collect),
        each(|party| party.close_order(party.node)),
    ]
    .concat();
    let transactions = packed(&world, &calls);
    let count = transactions.len();
    for transaction in transactions {
        world.send_all(&transaction).expect("it goes through");
    }
    for party in &parties {
        assert!(world.data(party.order()).is_none(), "the order is closed");
    }
    *largest = world.largest.get().max(*largest);
    count
}

/// A fraud case at the largest side.
fn accuse(largest: &mut usize) {
    let mut world = World::new();
    let party = Party::ready(&mut world, "a", 1);
    world.must(&party.post(1));
    world.must(&party.fill(0, 0, &[1]));
    world.wait(10);
    assert!(world.read::<Order>(party.order()).devices > 0);
    let answer = Answer::of_side(&world, party.devices[0], SIDE_MAX);
    let accuser = world.admin;
    world.must(&party.open_fraud(&world, accuser, &answer, Some(0)));
    world.must_with_units(&answer.show((0, 0), None), UNITS_MAX);
    *largest = world.largest.get().max(*largest);
}
