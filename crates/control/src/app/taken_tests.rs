use atoll_chain::market::instruction;
use atoll_chain::{Hash, Instruction, Keypair};
use atoll_domain::key::PublicKey;
use atoll_interface::instruction::ExtendOrder;

use super::*;

const ORDER: Address = PublicKey([2; 32]);

fn signed(added: &[(u32, u64)]) -> Vec<u8> {
    let renter = Keypair::from_seed(&[1; 32]);
    let extend = |&(seconds, escrow): &(u32, u64)| {
        let (order, source) = (atoll_chain::Address(ORDER.0), atoll_chain::Address([3; 32]));
        instruction::extend_order(renter.address(), order, source, &ExtendOrder { seconds, escrow })
    };
    let instructions: Vec<Instruction> = added.iter().map(extend).collect();
    atoll_chain::sign(&instructions, &renter, &[], &Hash([4; 32])).unwrap().bytes().to_vec()
}

#[test]
fn one_transaction_is_one_record_of_its_own_order_only() {
    let bytes = signed(&[(60, 5), (30, 2)]);
    let one = record(&bytes, &ORDER).unwrap();
    assert_eq!((one.seconds, one.escrow), (90, 7));
    assert_eq!(one.signature.0, transaction::decode(&bytes).unwrap().signatures[0].0);
    assert_eq!(record(&bytes, &PublicKey([7; 32])), None);
    assert_eq!(record(b"no transaction", &ORDER), None);
}

#[test]
fn what_is_known_stays_and_no_other_set_of_the_same_sum_takes_its_place() {
    let [ninety, sixty, thirty] = [(90, 9), (60, 6), (30, 3)].map(|added| record(&signed(&[added]), &ORDER).unwrap());
    let mut known = vec![ninety.clone()];
    merge(&mut known, [ninety.clone(), sixty.clone(), thirty.clone(), sixty.clone()]);
    assert_eq!(known, [ninety, sixty, thirty]);
}
