//! Takes the figures of a database failover: two private PostgreSQL servers, a standby that is promoted when the primary
//! is killed, eight writers of two nodes. Prints one line of JSON.
//!
//! `cargo run --release -p atoll-control --example store_failover [killed|hung|restarted] [writes]`
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a bench of its own, which no simulation runs")]

use atoll_control::store;

#[path = "../src/store/conformance/failover.rs"]
mod failover;
#[allow(dead_code, reason = "a bench needs less of it than the tests")]
#[path = "../src/store/conformance/make.rs"]
mod make;
#[path = "../src/store/conformance/pair.rs"]
mod pair;
#[allow(dead_code, reason = "a bench needs less of it than the tests")]
#[path = "../../../xtask/src/postgres.rs"]
mod private_postgres;

use failover::Fault;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let fault = match arguments.next().as_deref() {
        None | Some("killed") => Fault::Killed,
        Some("hung") => Fault::Hung,
        Some("restarted") => Fault::Restarted,
        Some(other) => anyhow::bail!("`{other}` is none of killed, hung, restarted"),
    };
    let writes = arguments.next().map_or(Ok(10_000), |writes| writes.parse())?;
    let mut pair = pair::Pair::start().await?;
    let figures = failover::measure(&mut pair, fault, writes).await?;
    let line = serde_json::json!({
        "failover_db_s": (figures.failover_s * 1000.0).round() / 1000.0,
        "acknowledged": figures.acknowledged,
        "lost": figures.lost,
        "doubled": figures.doubled,
        "failed": figures.failed,
    });
    println!("{line}");
    Ok(())
}
