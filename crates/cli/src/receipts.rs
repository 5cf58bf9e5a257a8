//! `atoll receipt show` and `verify`.

use std::path::Path;

use atoll_api::receipt::{RECEIPT_BYTES_MAX, Receipt, ReceiptBody};
use atoll_domain::id::JobId;
use atoll_domain::key::Digest;

use crate::exit::{Exit, Failure};
use crate::output::{Output, plain, table};
use crate::profile::{Home, write_private};
use crate::session::Session;
use crate::verify::{Verified, verify};

/// `atoll receipt show JOB|FILE`: what a receipt says. From the server it may be kept with `--output`.
///
/// # Errors
/// [`Failure`] when there is no such receipt, or it is not one.
pub async fn show(out: Output, what: &str, keep: Option<&Path>) -> Result<Exit, Failure> {
    let receipt = match what.parse::<JobId>() {
        Ok(job) => fetch(&Session::open(out)?, job).await?,
        Err(_) => read(Path::new(what))?,
    };
    let body = receipt.open().map_err(|error| not_valid(&error.to_string()))?;
    if let Some(path) = keep {
        let text =
            serde_json::to_vec(&receipt).map_err(|error| Failure::new(Exit::Internal, "receipt", error.to_string()))?;
        write_private(path, &text)?;
        out.say(&format!(
            "kept in {}; `atoll receipt verify {}` checks it with no network",
            path.display(),
            path.display()
        ));
    }
    out.result(&receipt, || text(&body))?;
    Ok(Exit::Ok)
}

async fn fetch(session: &Session, job: JobId) -> Result<Receipt, Failure> {
    let value = session.client.receipt(job).await?;
    serde_json::from_value(value).map_err(|error| not_valid(&format!("the server's answer is no receipt: {error}")))
}

fn read(path: &Path) -> Result<Receipt, Failure> {
    let shown = path.display();
    let unreadable = |error: std::io::Error| {
        Failure::usage(format!(
            "cannot read {shown}: {error}; give a receipt's file, or keep one with `atoll receipt show JOB --output FILE`"
        ))
    };
    let length = std::fs::metadata(path).map_err(unreadable)?.len();
    if length > RECEIPT_BYTES_MAX as u64 {
        return Err(not_valid(&format!("{shown} has {length} bytes; at most {RECEIPT_BYTES_MAX} are read")));
    }
    let bytes = std::fs::read(path).map_err(unreadable)?;
    Receipt::read(&bytes).map_err(|error| not_valid(&format!("{shown}: {error}")))
}

fn not_valid(reason: &str) -> Failure {
    Failure::new(Exit::NotValid, "receipt_not_valid", format!("the receipt is NOT valid: {reason}"))
}

/// `atoll receipt verify FILE`: no network. The root comes from the flag, else from the profile.
///
/// # Errors
/// [`Failure`] with [`Exit::NotValid`] and the reason.
pub fn check(out: Output, file: &Path, root: Option<Digest>) -> Result<Exit, Failure> {
    let receipt = read(file)?;
    let (pinned, from) = match root {
        Some(root) => (root, "given"),
        None => {
            let profile = Home::find().and_then(|home| home.load()).map_err(|failure| {
                Failure::usage(format!("no network root to start from: give --network-root HEX ({})", failure.message))
            })?;
            (profile.network_root, "pinned in the profile")
        }
    };
    let verified = verify(&receipt, pinned).map_err(|invalid| not_valid(&invalid.0))?;
    out.result(&verified, || {
        let lines = |words: &[String]| words.iter().map(|word| format!("\n  - {word}")).collect::<String>();
        format!(
            "{}\n\nthe receipt is VALID from network root {pinned} ({from})\nproven{}\ntrusted, not proven{}\ngiven, not checked offline{}",
            text(&verified.body),
            lines(&verified.proven),
            lines(&verified.trusted),
            lines(&verified.given)
        )
    })?;
    Ok(Exit::Ok)
}

/// A receipt's body for people.
#[must_use]
pub fn text(body: &ReceiptBody) -> String {
    let result = &body.result;
    let rows: Vec<Vec<String>> = body
        .leases
        .iter()
        .map(|lease| {
            let served = lease.attested.as_ref().map_or(0, |leaf| leaf.device_seconds);
            let workers: Vec<String> = lease.workers.iter().map(ToString::to_string).collect();
            let end = lease.reason.map_or_else(|| "ended".to_owned(), |reason| format!("{reason:?}").to_lowercase());
            let kind = if lease.refill { "replacement" } else { "first" };
            vec![
                lease.n.to_string(),
                kind.to_owned(),
                workers.join(","),
                lease.ask.to_string(),
                format!("{served} s"),
                end,
            ]
        })
        .collect();
    let resumed = result.resumed_from_step.map_or_else(String::new, |step| format!(", resumed from step {step}"));
    let reason =
        if result.reason.is_empty() { String::new() } else { format!("\n          {}", plain(&result.reason)) };
    let money = &body.money;
    format!(
        "job       {}  {}  ({} attempt(s){resumed}){reason}\nchecked   {}\nserved\n{}\nescrow    {}\npaid      {}\nrefunded  {}\nfees      {}  (burned {})",
        result.job,
        result.state.word(),
        result.attempts,
        plain(&result.checked),
        table(&["LEASE", "KIND", "WORKER", "ASK", "SERVED", "END"], &rows),
        money.escrow,
        money.paid,
        money.refunded,
        money.fees,
        money.burned,
    )
}

impl Verified {
    /// The line for a log: job, state, sums.
    #[must_use]
    pub fn summary(&self) -> String {
        let money = &self.body.money;
        format!(
            "{} paid {} refunded {} fees {} burned {}",
            self.body.result.job, money.paid, money.refunded, money.fees, money.burned
        )
    }
}
