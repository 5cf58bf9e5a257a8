//! Exit statuses, and the one error type of all client commands.
//!
//! A status is part of the interface: scripts branch on it. Everything a command can fail with is turned into a
//! [`Failure`] where it happens, with words that name the next step; nothing below this prints.

use std::fmt;

use atoll_api::client::ClientError;
use atoll_api::http::RefusedWorker;
use atoll_domain::job::{JobState, SpecError};
use serde_json::{Value, json};

/// How a command ended. The numbers never change their meaning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// A defect of Atoll itself, or of the machine below it.
    Internal = 1,
    /// The command line, `atoll.toml`, the job's folder or the profile is not usable. Nothing was sent.
    Usage = 2,
    /// Refused by the server, by the chain, or by a check made before anything was charged.
    Refused = 3,
    /// The server or the chain does not answer.
    Unreachable = 4,
    /// The job ended, and not well.
    JobFailed = 5,
    /// A receipt is not valid.
    NotValid = 6,
    /// The network is not the pinned one.
    OtherNetwork = 7,
    /// Stopped by ctrl-c; what was submitted goes on.
    Interrupted = 130,
}

impl Exit {
    /// Every status with the line that `--help` prints.
    pub const ALL: [(Self, &'static str); 9] = [
        (Self::Ok, "done"),
        (Self::Internal, "a defect of atoll or of the machine below it"),
        (Self::Usage, "command line, atoll.toml, folder or profile not usable; nothing was sent"),
        (Self::Refused, "refused by the server, the chain or a check before charging"),
        (Self::Unreachable, "server or chain does not answer"),
        (Self::JobFailed, "the job ended, and not well"),
        (Self::NotValid, "the receipt is not valid"),
        (Self::OtherNetwork, "the network is not the pinned one"),
        (Self::Interrupted, "stopped by ctrl-c; what was submitted goes on"),
    ];

    /// The number given to the operating system.
    #[must_use]
    pub const fn status(self) -> u8 {
        self as u8
    }
}

/// Why a command failed, in words for a person and a code for a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The process's status.
    pub exit: Exit,
    /// Stable name of the cause: the server's own, or one of this crate.
    pub code: String,
    /// What happened, why, and the next step.
    pub message: String,
    /// Why each worker was refused, where that is the cause.
    pub refusals: Vec<RefusedWorker>,
}

impl Failure {
    /// A failure without refusals.
    #[must_use]
    pub fn new(exit: Exit, code: &str, message: impl Into<String>) -> Self {
        Self { exit, code: code.to_owned(), message: message.into(), refusals: Vec::new() }
    }

    /// Something on the caller's side is not usable.
    #[must_use]
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, "usage", message)
    }

    /// The object printed with `--json`.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({"error": {
            "code": self.code,
            "message": self.message,
            "exit": self.exit.status(),
            "refusals": self.refusals,
        }})
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for refused in &self.refusals {
            write!(f, "\n  {}: {}", refused.worker, refused.reason)?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let message = error.to_string();
        match error {
            ClientError::Refused(body) => {
                Self { exit: Exit::Refused, code: body.code, message: body.message, refusals: body.refusals }
            }
            ClientError::Unreachable { .. } => Self::new(Exit::Unreachable, "unreachable", message),
            ClientError::Unintelligible { .. } => Self::new(Exit::Unreachable, "unintelligible", message),
            ClientError::Profile(_) => {
                Self::new(Exit::Usage, "profile", format!("{message}; run `atoll login` to write a new one"))
            }
        }
    }
}

impl From<SpecError> for Failure {
    fn from(error: SpecError) -> Self {
        Self::usage(error.to_string())
    }
}

/// The status that a finished job gives.
#[must_use]
pub const fn of_job(state: JobState) -> Exit {
    match state {
        JobState::Failed | JobState::Stopped => Exit::JobFailed,
        _ => Exit::Ok,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use atoll_api::http::ErrorBody;

    #[test]
    fn statuses_are_listed_once_and_in_order() {
        let numbers: Vec<u8> = Exit::ALL.iter().map(|(exit, _)| exit.status()).collect();
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6, 7, 130]);
    }

    #[test]
    fn the_servers_words_and_code_are_kept() {
        let body = ErrorBody { code: "no_fit".into(), message: "nobody serves it".into(), refusals: vec![] };
        let failure = Failure::from(ClientError::Refused(Box::new(body)));
        assert_eq!(
            (failure.exit, failure.code.as_str(), failure.to_string().as_str()),
            (Exit::Refused, "no_fit", "nobody serves it")
        );
    }
}
