//! Prints what hiring oneself through a thousand fresh wallets brings at best, in ATL, as the JSON object that
//! `cargo xtask bench program` reads.

fn main() {
    let profit = atoll_domain::reward::selfdeal::selfdeal_profit_atl();
    let how = "an owner hires its own devices for three hours through 1,000 fresh wallets, in both currencies and tiers, at eight asks, alone and among others, default parameters: the best of all";
    println!("{{\"selfdeal_profit_atl\":{{\"value\":{profit},\"how\":\"{how}\"}}}}");
}
