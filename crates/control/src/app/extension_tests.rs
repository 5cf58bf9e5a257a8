use atoll_chain::market::instruction;
use atoll_chain::{AccountMeta, Hash, Instruction, Keypair};
use atoll_interface::instruction::ExtendOrder;

use super::*;

const NOW: i64 = 1_000;
const ORDER: Address = PublicKey([2; 32]);

fn renter() -> Keypair {
    Keypair::from_seed(&[1; 32])
}

/// Two devices for an hour, since 500.
fn order() -> Order {
    let mut order = Order::new();
    (order.renter, order.devices, order.devices_live) = (renter().address().0, 2, 2);
    (order.rate_cap, order.fee_bps, order.duration_s) = (10, 25, 3_600);
    (order.posted_at, order.active_at, order.end) = (400, 500, 4_100);
    order
}

fn extend(seconds: u32, escrow: u64) -> Instruction {
    let source = atoll_chain::Address([3; 32]);
    let data = ExtendOrder { seconds, escrow };
    instruction::extend_order(renter().address(), atoll_chain::Address(ORDER.0), source, &data)
}

fn signed(instructions: &[Instruction], by: &Keypair) -> Decoded {
    transaction::decode(atoll_chain::sign(instructions, by, &[], &Hash([4; 32])).unwrap().bytes()).unwrap()
}

#[test]
fn an_extension_says_what_the_order_asks_or_is_refused_in_words() {
    let order = order();
    let escrow = order.extension(60).unwrap();
    let good = || extend(60, escrow);
    let extension = check(&signed(&[good()], &renter()), &ORDER, &order, NOW).unwrap();
    assert_eq!((extension.seconds, extension.escrow, extension.source.0), (60, escrow, [3; 32]));
    let refused = |instructions: &[Instruction], order: &Order, now| {
        check(&signed(instructions, &renter()), &ORDER, order, now).unwrap_err().to_string()
    };
    let said = |words: &str, why: String| assert!(why.contains(words), "expected `{words}`, got `{why}`");
    said("exactly one `extend_order`", refused(&[good(), good()], &order, NOW));
    let mut other = good();
    other.data[0] = 2;
    said("exactly one `extend_order`", refused(&[other.clone()], &order, NOW));
    said("asks more of the market program", refused(&[good(), other], &order, NOW));
    said("60 s is the least", refused(&[extend(59, order.extension(59).unwrap())], &order, NOW));
    said("worst case of the time", refused(&[extend(60, escrow + 1)], &order, NOW));
    said("worst case of the time", refused(&[extend(61, escrow)], &order, NOW));
    let mut vault = good();
    vault.accounts[2] = AccountMeta::write(atoll_chain::Address([9; 32]));
    said("pays into", refused(&[vault], &order, NOW));
    said("not active", refused(&[good()], &order, 4_100));
    let mut of_another = order;
    of_another.renter = [9; 32];
    said("lengthens order", refused(&[good()], &of_another, NOW));
    let fewer = Order { devices_live: 1, ..order };
    said("worst case of the time", refused(&[good()], &fewer, NOW));
    let forever = extend(u32::MAX - 3_600, order.extension(u32::MAX - 3_600).unwrap());
    assert!(!refused(&[forever], &order, NOW).is_empty());
}
