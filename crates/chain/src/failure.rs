//! Why the chain failed or refused a transaction, in words. Pure.
//!
//! Solana answers with a nested JSON value and, in preflight, the log. A numbered error belongs to the program that gave
//! it: the log tells which one when programs call each other, and without a log it is the program of the failing
//! instruction.

use std::fmt;

use serde_json::Value;

use crate::address::Address;
use crate::{market, spl};

/// Longest log kept with a failure, in lines; the end of a log tells most.
const LOG_LINES_MAX: usize = 64;

/// Why a transaction failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What went wrong.
    pub kind: FailureKind,
    /// The instruction that failed, counted from zero; none when the whole transaction was refused.
    pub instruction: Option<u8>,
    /// The program that gave the error, where known.
    pub program: Option<Address>,
    /// The log's last lines; empty when the node gave none.
    pub log: Vec<String>,
}

/// What went wrong with a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FailureKind {
    /// A program's numbered error. [`Failure::market_error`] names those of the market program.
    Custom(u32),
    /// The blockhash is unknown or too old: sign again with a new one.
    BlockhashNotFound,
    /// The transaction was processed before.
    AlreadyProcessed,
    /// The fee payer has too few lamports, or does not exist.
    InsufficientFundsForFee,
    /// An account would be left with fewer lamports than its rent.
    InsufficientFundsForRent,
    /// Anything else, by the name Solana gives it.
    Other(String),
}

impl Failure {
    /// Reads the `err` value of a Solana answer. `programs` are the programs of the transaction's instructions, in order.
    #[must_use]
    pub fn read(error: &Value, log: &[String], programs: &[Address]) -> Self {
        let log: Vec<String> = log[log.len().saturating_sub(LOG_LINES_MAX)..].to_vec();
        let Some((index, inner)) = instruction_error(error) else {
            return Self { kind: transaction_kind(error), instruction: None, program: None, log };
        };
        let program = failed_program(&log).or_else(|| programs.get(usize::from(index)).copied());
        Self { kind: instruction_kind(inner), instruction: Some(index), program, log }
    }

    /// The market program's own error, when it is one.
    #[must_use]
    pub fn market_error(&self) -> Option<market::MarketError> {
        match self.kind {
            FailureKind::Custom(code) if self.program == Some(market::PROGRAM_ID) => market::error_of_code(code),
            _ => None,
        }
    }

    fn words(&self) -> String {
        match &self.kind {
            FailureKind::Custom(code) => match self.program {
                Some(market::PROGRAM_ID) => market::error_words(*code),
                Some(spl::TOKEN_PROGRAM) => spl::token_error(*code).map(str::to_owned),
                Some(spl::SYSTEM_PROGRAM) => spl::system_error(*code).map(str::to_owned),
                _ => None,
            }
            .unwrap_or_else(|| format!("error number {code}")),
            FailureKind::BlockhashNotFound => "its blockhash is unknown or too old: sign it again".to_owned(),
            FailureKind::AlreadyProcessed => "it was processed before".to_owned(),
            FailureKind::InsufficientFundsForFee => {
                "the fee payer has no lamports for the fee: send SOL to it first".to_owned()
            }
            FailureKind::InsufficientFundsForRent => {
                "an account would be left with less than its rent: send SOL to the payer first".to_owned()
            }
            FailureKind::Other(name) => name.clone(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.instruction, self.program) {
            (Some(index), Some(program)) => {
                write!(f, "instruction {index} was refused by {}: {}", program_name(&program), self.words())
            }
            (Some(index), None) => write!(f, "instruction {index} was refused: {}", self.words()),
            _ => write!(f, "the transaction was refused: {}", self.words()),
        }
    }
}

fn program_name(program: &Address) -> String {
    match *program {
        market::PROGRAM_ID => "the market program".to_owned(),
        spl::TOKEN_PROGRAM => "the token program".to_owned(),
        spl::SYSTEM_PROGRAM => "the system program".to_owned(),
        spl::ASSOCIATED_TOKEN_PROGRAM => "the associated token program".to_owned(),
        other => format!("program {other}"),
    }
}

fn instruction_error(error: &Value) -> Option<(u8, &Value)> {
    let parts = error.get("InstructionError")?.as_array()?;
    let index = parts.first()?.as_u64().and_then(|index| u8::try_from(index).ok())?;
    Some((index, parts.get(1)?))
}

fn instruction_kind(inner: &Value) -> FailureKind {
    let custom = inner.get("Custom").and_then(Value::as_u64).and_then(|code| u32::try_from(code).ok());
    custom.map_or_else(|| FailureKind::Other(name_of(inner)), FailureKind::Custom)
}

fn transaction_kind(error: &Value) -> FailureKind {
    match name_of(error).as_str() {
        "BlockhashNotFound" => FailureKind::BlockhashNotFound,
        "AlreadyProcessed" => FailureKind::AlreadyProcessed,
        // An account that does not exist cannot pay a fee either.
        "InsufficientFundsForFee" | "AccountNotFound" => FailureKind::InsufficientFundsForFee,
        "InsufficientFundsForRent" => FailureKind::InsufficientFundsForRent,
        other => FailureKind::Other(other.to_owned()),
    }
}

/// The variant's name: the text itself, or the only key of an object. Bounded, since it comes from outside.
fn name_of(value: &Value) -> String {
    let name = match value {
        Value::String(name) => name.as_str(),
        Value::Object(object) => object.keys().next().map_or("unknown error", String::as_str),
        _ => "unknown error",
    };
    name.chars().take(80).collect()
}

/// The innermost program that failed: the first `Program X failed` of the log.
fn failed_program(log: &[String]) -> Option<Address> {
    log.iter().find_map(|line| line.strip_prefix("Program ")?.split_once(" failed: ")?.0.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn errors_are_read_with_their_program() {
        let programs = [spl::SYSTEM_PROGRAM, market::PROGRAM_ID];
        let failure = Failure::read(&json!({"InstructionError": [0, {"Custom": 1}]}), &[], &programs);
        assert_eq!(
            failure.to_string(),
            "instruction 0 was refused by the system program: not enough lamports in the account"
        );

        // The market calls the token program, which fails: the number is the token program's.
        let log = [
            format!("Program {} invoke [1]", market::PROGRAM_ID),
            format!("Program {} failed: custom program error: 0x1", spl::TOKEN_PROGRAM),
            format!("Program {} failed: custom program error: 0x1", market::PROGRAM_ID),
        ];
        let failure = Failure::read(&json!({"InstructionError": [1, {"Custom": 1}]}), &log, &programs);
        assert_eq!(failure.market_error(), None);
        assert_eq!(
            failure.to_string(),
            "instruction 1 was refused by the token program: not enough tokens in the account"
        );
    }

    #[test]
    fn errors_of_the_whole_transaction_are_named() {
        let kind = |value| Failure::read(&value, &[], &[]).kind;
        assert_eq!(kind(json!("BlockhashNotFound")), FailureKind::BlockhashNotFound);
        assert_eq!(kind(json!("AccountNotFound")), FailureKind::InsufficientFundsForFee);
        assert_eq!(
            kind(json!({"InsufficientFundsForRent": {"account_index": 0}})),
            FailureKind::InsufficientFundsForRent
        );
        assert_eq!(kind(json!("TooManyAccountLocks")), FailureKind::Other("TooManyAccountLocks".to_owned()));
    }

    #[test]
    fn hostile_errors_are_bounded() {
        for value in
            [json!(null), json!([]), json!({}), json!({"InstructionError": []}), json!({"InstructionError": [999, 1]})]
        {
            assert!(matches!(Failure::read(&value, &[], &[]).kind, FailureKind::Other(_)), "{value}");
        }
        let long = Failure::read(&json!("x".repeat(100_000)), &vec![String::new(); 1000], &[]);
        assert!(long.to_string().len() < 200 && long.log.len() == LOG_LINES_MAX);
    }
}
