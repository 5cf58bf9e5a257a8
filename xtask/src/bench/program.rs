//! The market program, measured: compute units from the golden table, which a test first compares with the real bytes;
//! transactions, bytes, rent and dollars from an example that sends them; and whether the committed bytes are rebuilt.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::reported::{read, run};
use super::{Figure, Figures};
use crate::program::{Fetch, check};
use crate::test::command;

/// Compute units of one line of `program/tests/costs.tsv`, over so many leaves.
const UNITS: [(&str, &str, &str, f64); 9] = [
    ("settle_leaf_cu_k4", "<= 1900", "settle_batch 4 of 2^10", 4.0),
    ("settle_leaf_cu_k8", "<= 1500", "settle_batch 8 of 2^10", 8.0),
    ("settle_single_cu", "<= 6000", "settle_lease depth 14", 1.0),
    ("withdraw_cu", "<= 2500", "withdraw_owed", 1.0),
    ("collect_fees_cu", "<= 6000", "collect_fees", 1.0),
    ("post_order_cu", "<= 8000", "post_order by wallet", 1.0),
    ("claim_reward_cu", "<= 8000", "claim_reward depth 14", 1.0),
    ("fraud_open_cu", "<= 12000", "open_fraud n = 4096", 1.0),
    ("fraud_element_cu", "<= 120000", "add_fraud_element n = 4096", 1.0),
];

/// What `--example transactions` reports: key, unit and bar.
const SENT: [(&str, &str, &str); 6] = [
    ("fill_slot_cu", "CU", "<= 250"),
    ("fill_1250_workers_tx", "tx", "<= 2"),
    ("rent_sol_10k_gpus", "SOL", "<= 0.02"),
    ("usd_per_gpu_hour_settle", "USD", "<= 2e-6"),
    ("usd_per_gpu_hour_all_6h", "USD", "<= 6e-5"),
    ("max_tx_bytes", "B", "<= 1232"),
];

/// The package in which the real bytes are run.
const TESTS: &str = "atoll-market-tests";

pub(super) fn measure(repository: &Path) -> Result<Figures> {
    let mut figures = Figures::new();
    let table = command(repository, "cargo", &["test", "--locked", "-p", TESTS, "--test", "costs"])
        .and_then(|()| {
            let path = repository.join("program/tests/costs.tsv");
            std::fs::read_to_string(&path).with_context(|| path.display().to_string())
        })
        .map_err(|error| format!("{error:#}"));
    for (key, bar, line, leaves) in UNITS {
        let how = format!("`{line}` of program/tests/costs.tsv, over {leaves}: the real bytes in litesvm");
        let value = table.as_ref().map_err(Clone::clone).and_then(|table| {
            let found = units(table, line).ok_or_else(|| format!("program/tests/costs.tsv has no line `{line}`"))?;
            Ok((found / leaves, how))
        });
        figures.insert(key, figure("CU", bar, value));
    }
    let sent = run(repository, &["run", "--locked", "-p", TESTS, "--example", "transactions"]);
    let sent: Result<Value, String> = sent.map_err(|error| format!("{error:#}"));
    for (key, unit, bar) in SENT {
        figures.insert(key, figure(unit, bar, sent.as_ref().map_err(Clone::clone).and_then(|sent| read(sent, key))));
    }
    let hired = run(repository, &["run", "--locked", "-p", "atoll-domain", "--example", "selfdeal"]);
    let hired = hired.map_err(|error| format!("{error:#}")).and_then(|told| read(&told, "selfdeal_profit_atl"));
    figures.insert("selfdeal_profit_atl", figure("ATL", "<= 0", hired));
    let rebuilt = check(repository, Fetch::Yes).map_err(|error| format!("{error:#}"));
    let rebuilt =
        rebuilt.map(|()| (1.0, "`cargo xtask program check` with the whole toolchain, byte for byte".to_owned()));
    figures.insert("elf_rebuilt", figure("bool", "true", rebuilt));
    Ok(figures)
}

/// The compute units in the table's line of that name.
fn units(table: &str, name: &str) -> Option<f64> {
    table.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('\t')?.parse().ok())
}

fn figure(unit: &'static str, bar: &'static str, taken: Result<(f64, String), String>) -> Figure {
    match taken {
        Ok((value, how)) => Figure { value: Some(value), unit, bar, how, why: None },
        Err(why) => Figure { value: None, unit, bar, how: String::new(), why: Some(why) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_table_is_found_by_its_whole_name() {
        let table = "instruction\tcompute units\nstake\t12\nstake first\t34\n";
        assert_eq!(units(table, "stake"), Some(12.0));
        assert_eq!(units(table, "stake first"), Some(34.0));
        assert_eq!(units(table, "sta"), None);
    }
}
