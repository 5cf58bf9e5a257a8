//! The program's refusals in words, with the next step. The page of all of them, docs/errors/market.md, is built in.

use atoll_chain::Failure as ChainFailure;
use atoll_chain::market::MarketError;

use crate::exit::{Exit, Failure};

/// What happened and what to do, by name and number.
const PAGE: &str = include_str!("../../../../docs/errors/market.md");

/// What to do about a refusal, one sentence.
#[must_use]
pub fn cure(error: MarketError) -> &'static str {
    let start = format!("| {} | `{error:?}` | ", error.code());
    let row = PAGE.lines().find_map(|line| line.strip_prefix(start.as_str()));
    row.and_then(|rest| rest.split_once(" | ")).map_or("", |(_, cure)| cure.trim_end_matches([' ', '|']))
}

/// A refusal's name for scripts: `BudgetExceeded` is `budget_exceeded`.
#[must_use]
pub fn code(error: MarketError) -> String {
    let mut code = String::new();
    for letter in format!("{error:?}").chars() {
        if letter.is_ascii_uppercase() && !code.is_empty() {
            code.push('_');
        }
        code.push(letter.to_ascii_lowercase());
    }
    code
}

/// Why the chain refused a transaction, and the next step.
#[must_use]
pub fn words(failure: &ChainFailure) -> Failure {
    refused(failure, "nothing was changed")
}

/// Why a node refused a transaction in a trial run, and the next step. The chain itself has not said no.
#[must_use]
pub fn tried(failure: &ChainFailure) -> Failure {
    refused(failure, "the node did not pass it on; for a minute or so this command sends the same transaction again")
}

fn refused(failure: &ChainFailure, then: &str) -> Failure {
    match failure.market_error() {
        Some(error) => Failure::new(Exit::Refused, &code(error), format!("{}; {then}. {}", error.words(), cure(error))),
        None => Failure::new(Exit::Refused, "chain_refused", format!("{failure}; {then}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use atoll_chain::FailureKind;
    use atoll_chain::market::PROGRAM_ID;

    #[test]
    fn every_refusal_has_words_a_next_step_and_a_code() {
        for &error in MarketError::ALL {
            assert!(cure(error).len() > 10, "{error:?}: {}", cure(error));
            assert!(code(error).bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{error:?}");
        }
        let kind = FailureKind::Custom(MarketError::BudgetExceeded.code());
        let failure = ChainFailure { kind, instruction: Some(0), program: Some(PROGRAM_ID), log: Vec::new() };
        assert_eq!(
            words(&failure),
            Failure::new(
                Exit::Refused,
                "budget_exceeded",
                "the order is above the budget's limit for one order or for one day; nothing was changed. Post a smaller order, wait for the next day, or raise the budget with the wallet."
            )
        );
    }

    #[test]
    fn another_programs_number_is_not_taken_for_the_markets() {
        let kind = FailureKind::Custom(40);
        let failure = ChainFailure {
            kind,
            instruction: Some(0),
            program: Some(atoll_chain::spl::TOKEN_PROGRAM),
            log: Vec::new(),
        };
        assert_eq!(words(&failure).code, "chain_refused");
    }
}
