use super::{
    selfdeal::{Currency, Scenario, selfdeal_profit_atl},
    *,
};
use atoll_interface::{emission, layout::TIER_COMMUNITY};
use proptest::prelude::*;

const TERMS: Terms = Terms { enterprise_bps: 9_500, hired_cap_bps: 5_000, hired_extra_milli: 1_000 };
const LEASE: Address = [7; 32];

fn work(page: u8, tier: u8, checked_s: u64, hired_s: u64) -> Work {
    let hired_s = if hired_s == 0 { BTreeMap::new() } else { BTreeMap::from([(LEASE, hired_s)]) };
    Work { page: [page; 32], tier, multiplier_milli: 1_000, checked_s, hired_s }
}

fn hour(work: &[Work], burned: u64) -> Books {
    let mut books = Books::default();
    books.hour(1_000_000, &TERMS, work, &BTreeMap::from([(LEASE, burned)]));
    books
}

#[test]
fn tiers_have_their_parts_and_time_divides_them() {
    let books = hour(
        &[work(1, TIER_ENTERPRISE, 3_600, 0), work(2, TIER_ENTERPRISE, 1_200, 0), work(3, TIER_COMMUNITY, 60, 0)],
        0,
    );
    assert_eq!([1, 2, 3].map(|page| books.earned(&[page; 32])), [712_500, 237_500, 50_000]);
    assert_eq!(books.total(), 1_000_000);
    // Nobody in a tier: its part is given to nobody. Nobody at all: nothing.
    assert_eq!(hour(&[work(3, TIER_COMMUNITY, 60, 0)], 0).total(), 50_000);
    assert_eq!(hour(&[work(3, TIER_COMMUNITY, 0, 60)], 9).total(), 0);
}

#[test]
fn a_heavier_model_earns_more() {
    let heavy = Work { multiplier_milli: 3_000, ..work(1, TIER_ENTERPRISE, 100, 0) };
    let books = hour(&[heavy, work(2, TIER_ENTERPRISE, 100, 0)], 0);
    assert_eq!([1, 2].map(|page| books.earned(&[page; 32])), [712_500, 237_500]);
}

#[test]
fn hired_time_earns_more_up_to_half_of_what_it_burned() {
    // Two workers of one hour each, one hired: of 950,000 its hired time would earn a third, 316,666.
    let both = [work(1, TIER_ENTERPRISE, 3_600, 3_600), work(2, TIER_ENTERPRISE, 3_600, 0)];
    for (burned, bonus) in [(0, 0), (1, 0), (2, 1), (1_000, 500), (633_332, 316_666), (10_000_000, 316_666)] {
        let books = hour(&both, burned);
        let base = (950_000 - bonus) / 2;
        assert_eq!([1, 2].map(|page| books.earned(&[page; 32])), [base + bonus, base], "{burned}");
        assert_eq!(books.bonus(&LEASE), u128::from(bonus));
    }
    // No more hired time counts than was served and checked.
    let books = hour(&[work(1, TIER_ENTERPRISE, 3_600, u64::MAX), work(2, TIER_ENTERPRISE, 3_600, 0)], 10_000_000);
    assert_eq!(books.bonus(&LEASE), 316_666);
}

#[test]
fn fees_that_burn_later_pay_their_bonus_then_and_once() {
    let both = [work(1, TIER_ENTERPRISE, 3_600, 3_600), work(2, TIER_ENTERPRISE, 3_600, 0)];
    let mut books = hour(&both, 0);
    let idle = [work(1, TIER_ENTERPRISE, 3_600, 0), work(2, TIER_ENTERPRISE, 3_600, 0)];
    for (burned, bonus) in [(1_000, 500), (1_000, 500), (900, 500), (10_000_000, 316_666), (10_000_000, 316_666)] {
        books.hour(1_000_000, &TERMS, &idle, &BTreeMap::from([(LEASE, burned)]));
        assert_eq!(books.bonus(&LEASE), bonus);
    }
    books.forget(&LEASE);
    assert_eq!(books.bonus(&LEASE), 0);
}

#[test]
fn hiring_oneself_through_a_thousand_wallets_never_pays() {
    let figure = selfdeal_profit_atl();
    println!("selfdeal_profit_atl {figure}");
    assert!(figure <= 0.0, "{figure}");
    for currency in [Currency::Atl, Currency::Usdc] {
        for tier in [TIER_COMMUNITY, TIER_ENTERPRISE] {
            let profit = Scenario::default_of(currency, tier).profit();
            println!("{currency:?} tier {tier}: {profit} base units in a day at 2 USD an hour");
            assert!(profit < -100_000_000_000, "the fees of a thousand devices are lost: {profit}");
        }
    }
}

/// Without the cap it would pay: what the cap is for.
#[test]
fn without_the_cap_hiring_oneself_would_pay() {
    let mut scenario = Scenario { ask_uusd: 400, ..Scenario::default_of(Currency::Atl, TIER_ENTERPRISE) };
    assert!(scenario.profit() <= 0);
    scenario.terms.hired_cap_bps = u16::MAX;
    assert!(scenario.profit() > 0, "{}", scenario.profit());
}

fn any_work() -> impl Strategy<Value = Work> {
    let hired = prop::collection::btree_map((0u8..4).prop_map(|lease| [lease; 32]), 0u64..5_000, 0..3);
    (0u8..5, 1u8..=2, 0u32..4_000, 0u64..60_000, hired).prop_map(
        |(page, tier, multiplier_milli, checked_s, hired_s)| Work {
            page: [page; 32],
            tier,
            multiplier_milli,
            checked_s,
            hired_s,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is served, hired and burned, the sums stay within the table, grow, and no lease's bonus passes its cap.
    #[test]
    fn sums_stay_within_the_table(
        hours in prop::collection::vec((prop::collection::vec(any_work(), 0..8), prop::array::uniform4(0u64..u64::MAX / 2)), 1..8)
    ) {
        let (mut books, mut burned) = (Books::default(), BTreeMap::<Address, u64>::new());
        for (hour, (work, burns)) in (0..).zip(hours) {
            for (lease, burn) in (0u8..).zip(burns) {
                let sum = burned.entry([lease; 32]).or_default();
                *sum = (*sum).max(burn >> (10 * lease));
            }
            let before: Vec<_> = books.leaves().collect();
            books.hour(emission::hour(hour), &TERMS, &work, &burned);
            prop_assert!(books.total() <= emission::given(hour + 1));
            prop_assert!(before.iter().all(|(page, sum)| books.earned(page) >= *sum));
            for (lease, burned) in &burned {
                prop_assert!(books.bonus(lease) * 2 <= u128::from(*burned));
            }
        }
    }

    /// Any ask, any share of the network, any price: who hires itself ends with no more than who does not.
    #[test]
    fn hiring_oneself_never_pays(
        usdc: bool, enterprise: bool, wallets in 1u32..60, others in 0u32..200, hours in 1u64..6,
        ask_uusd in prop_oneof![0u64..10, 0u64..10_000, 0u64..10_000_000_000], uusd_per_atl in 1u64..100_000_000,
    ) {
        let currency = if usdc { Currency::Usdc } else { Currency::Atl };
        let scenario = Scenario {
            wallets, others, hours, ask_uusd, uusd_per_atl,
            ..Scenario::default_of(currency, if enterprise { TIER_ENTERPRISE } else { TIER_COMMUNITY })
        };
        prop_assert!(scenario.profit() <= 0, "{}", scenario.profit());
    }
}
