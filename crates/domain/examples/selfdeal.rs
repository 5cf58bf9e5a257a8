//! Prints what hiring oneself through a thousand fresh wallets brings at best, in ATL: `selfdeal_profit_atl`.

fn main() {
    println!("selfdeal_profit_atl\t{}", atoll_domain::reward::selfdeal::selfdeal_profit_atl());
}
