//! A Solana JSON-RPC client over HTTP.
//!
//! Every answer is bounded in size and checked before it is believed: an account of another owner, a list of another
//! length, a slot that is no number are refused as [`RpcError::Malformed`]. Requests are repeated on transport errors
//! only, with full jitter, and only those that may be repeated (sending a signed transaction twice is one transaction).
//! What an answer means for the market is told by [`crate::market`]. TLS roots are the platform's.

mod answer;
mod confirm;
mod transport;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use crate::address::{Address, Hash, Signature};
use crate::failure::Failure;
use crate::spl;
use crate::transaction::SignedTransaction;

pub use confirm::{ConfirmError, Confirmed};
use transport::{Repeat, Transport};
pub use wire::{Posted, Posting, Wire, WireError};

/// Most accounts of one `getMultipleAccounts`, and signatures of one `getSignatureStatuses` (Solana's limits are 100
/// and 256; one number serves both).
const KEYS_PER_CALL: usize = 100;
/// Most signatures of one `getSignaturesForAddress`: Solana's limit.
const SIGNATURES_PER_PAGE: usize = 1000;

/// How a client reaches its node.
#[derive(Debug, Clone)]
pub struct RpcConfig {
    /// `http://` or `https://` address of the node's JSON-RPC.
    pub url: String,
    /// Longest wait for one answer.
    pub timeout: Duration,
    /// Most tries of one request, the first included.
    pub tries_max: u32,
    /// Longest pause before the first repetition; doubles each time, and the pause is drawn evenly below it.
    pub pause: Duration,
    /// Most bytes of one answer.
    pub answer_bytes_max: usize,
    /// Seed of the pauses, from the caller's source of randomness.
    pub jitter_seed: u64,
}

impl RpcConfig {
    /// The usual settings: 10 s, five tries from 100 ms, 64 MiB (a page of 1,024 slots is 98 KiB, so some 490 of them).
    #[must_use]
    pub fn new(url: impl Into<String>, jitter_seed: u64) -> Self {
        Self {
            url: url.into(),
            timeout: Duration::from_secs(10),
            tries_max: 5,
            pause: Duration::from_millis(100),
            answer_bytes_max: 64 << 20,
            jitter_seed,
        }
    }
}

/// How settled a state must be to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Commitment {
    /// Seen by this node.
    Processed,
    /// Voted for by two thirds of the stake: control acts on it.
    Confirmed,
    /// Cannot be undone: settlement waits for it.
    Finalized,
}

impl Commitment {
    const fn name(self) -> &'static str {
        match self {
            Self::Processed => "processed",
            Self::Confirmed => "confirmed",
            Self::Finalized => "finalized",
        }
    }
}

/// Why a request to the chain failed.
#[derive(Debug, thiserror::Error)]
pub enum RpcError {
    /// The URL is none, or TLS cannot be set up.
    #[error("cannot use the chain's address {url}: {why}; give one like http://127.0.0.1:8899")]
    Address { url: String, why: String },
    /// The node could not be reached, or did not answer in time.
    #[error(
        "the chain at {endpoint} did not answer {method} ({tries} tries): {why}; check that it runs and is reachable"
    )]
    Unreachable { endpoint: String, method: &'static str, tries: u32, why: String },
    /// The answer is longer than allowed.
    #[error("the chain's answer to {method} is over {limit} bytes and was dropped; ask for less")]
    TooLarge { method: &'static str, limit: usize },
    /// The answer is not what the protocol says: another server, or a lying one.
    #[error(
        "the chain's answer to {method} cannot be believed: {why}; check that the address is a Solana JSON-RPC node"
    )]
    Malformed { method: &'static str, why: String },
    /// The node refused the request.
    #[error("the chain refused {method}: {message} (code {code})")]
    Refused { method: &'static str, code: i64, message: String },
    /// The transaction fails: found by the preflight run, nothing was charged.
    #[error("{0}")]
    Failed(Box<Failure>),
}

/// An account as the chain holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Where it is.
    pub address: Address,
    /// The program that may write it.
    pub owner: Address,
    /// Its lamports.
    pub lamports: u64,
    /// Its bytes.
    pub data: Vec<u8>,
    /// Whether it is a program.
    pub executable: bool,
}

/// Which accounts of a program are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// Those with so many bytes.
    DataSize(usize),
    /// Those with these bytes at this offset (at most 128 bytes).
    Bytes { offset: usize, bytes: Vec<u8> },
}

/// A blockhash and how long it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LatestBlockhash {
    /// The hash to sign with.
    pub blockhash: Hash,
    /// The last block height in which a transaction with it may land.
    pub last_valid_block_height: u64,
}

/// Where a transaction stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The slot that processed it.
    pub slot: u64,
    /// How settled it is.
    pub commitment: Commitment,
    /// Solana's error value, when it failed.
    pub error: Option<Value>,
}

/// A client of one node. Cheap to clone; clones share connections.
#[derive(Debug, Clone)]
pub struct Rpc {
    transport: Arc<Transport>,
    commitment: Commitment,
}

impl Rpc {
    /// A client that reads at [`Commitment::Confirmed`]. Connects on the first request.
    ///
    /// # Errors
    /// [`RpcError::Address`] when the URL is none.
    pub fn new(config: RpcConfig) -> Result<Self, RpcError> {
        Ok(Self { transport: Arc::new(Transport::new(config)?), commitment: Commitment::Confirmed })
    }

    /// A client over a wire of the caller's; of `config` only what concerns repetition and bounds is used, and the URL
    /// for messages.
    #[must_use]
    pub fn over(wire: Box<dyn Wire>, config: RpcConfig) -> Self {
        Self { transport: Arc::new(Transport::over(wire, config)), commitment: Commitment::Confirmed }
    }

    /// The same client, reading at another commitment.
    #[must_use]
    pub fn at(&self, commitment: Commitment) -> Self {
        Self { transport: Arc::clone(&self.transport), commitment }
    }

    /// Host and port of the node, without path or credentials.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        self.transport.endpoint()
    }

    async fn ask(&self, method: &'static str, params: Value) -> Result<Value, RpcError> {
        self.transport.call(method, params, Repeat::OnTransportErrors).await
    }

    fn config(&self) -> Value {
        json!({ "commitment": self.commitment.name() })
    }

    /// The hash that names the cluster for ever.
    ///
    /// # Errors
    /// [`RpcError`], as every request of this client.
    pub async fn genesis_hash(&self) -> Result<Hash, RpcError> {
        answer::text(self.ask("getGenesisHash", json!([])).await?, "getGenesisHash")
    }

    /// The current slot.
    ///
    /// # Errors
    /// [`RpcError`], as every request of this client.
    pub async fn slot(&self) -> Result<u64, RpcError> {
        answer::number(&self.ask("getSlot", json!([self.config()])).await?, "getSlot")
    }

    /// The current block height, which bounds the life of blockhashes.
    ///
    /// # Errors
    /// [`RpcError`], as every request of this client.
    pub async fn block_height(&self) -> Result<u64, RpcError> {
        answer::number(&self.ask("getBlockHeight", json!([self.config()])).await?, "getBlockHeight")
    }

    /// The time of a slot's block in seconds since 1970; none when the node does not have it.
    ///
    /// # Errors
    /// [`RpcError`], as every request of this client.
    pub async fn block_time(&self, slot: u64) -> Result<Option<i64>, RpcError> {
        let answer = self.ask("getBlockTime", json!([slot])).await?;
        let malformed = || answer::malformed("getBlockTime", "the time is no number");
        if answer.is_null() { Ok(None) } else { answer.as_i64().map(Some).ok_or_else(malformed) }
    }

    /// The cluster's clock as programs see it.
    ///
    /// # Errors
    /// [`RpcError`], as every request of this client.
    pub async fn clock(&self) -> Result<spl::Clock, RpcError> {
        let account = self.account(&spl::CLOCK_SYSVAR).await?;
        let clock = account.and_then(|account| spl::Clock::read(&account.data));
        clock.ok_or_else(|| answer::malformed("getAccountInfo", "the node has no clock"))
    }

    /// The newest blockhash.
    ///
    /// # Errors
    /// [`RpcError`], as every request of this client.
    pub async fn latest_blockhash(&self) -> Result<LatestBlockhash, RpcError> {
        const METHOD: &str = "getLatestBlockhash";
        let value = answer::value(self.ask(METHOD, json!([self.config()])).await?, METHOD)?;
        Ok(LatestBlockhash {
            blockhash: answer::text(value["blockhash"].clone(), METHOD)?,
            last_valid_block_height: answer::number(&value["lastValidBlockHeight"], METHOD)?,
        })
    }

    /// Hands a transaction to the chain after a preflight run. The name it is known by is [`SignedTransaction::signature`].
    /// Being handed over is not being processed: see [`Rpc::confirm`].
    ///
    /// # Errors
    /// [`RpcError::Failed`] when the preflight run fails, with nothing charged; otherwise as every request.
    pub async fn send(&self, transaction: &SignedTransaction) -> Result<(), RpcError> {
        const METHOD: &str = "sendTransaction";
        let config = json!({ "encoding": "base64", "preflightCommitment": self.commitment.name() });
        let sent = self.ask(METHOD, json!([transaction.to_base64(), config])).await;
        let signature: Signature = answer::text(sent.map_err(|e| name_programs(e, transaction))?, METHOD)?;
        if signature == transaction.signature() {
            Ok(())
        } else {
            Err(answer::malformed(METHOD, "it names another transaction"))
        }
    }

    /// Where transactions stand, in the order asked; none for those the node does not know.
    ///
    /// # Errors
    /// [`RpcError`], as every request of this client.
    pub async fn statuses(&self, signatures: &[Signature]) -> Result<Vec<Option<Status>>, RpcError> {
        const METHOD: &str = "getSignatureStatuses";
        let mut statuses = Vec::with_capacity(signatures.len());
        for some in signatures.chunks(KEYS_PER_CALL) {
            let answer = self.ask(METHOD, json!([some, { "searchTransactionHistory": true }])).await?;
            statuses.extend(answer::list(answer::value(answer, METHOD)?, some.len(), METHOD, answer::status)?);
        }
        Ok(statuses)
    }

    /// One account; none when there is nothing at the address.
    ///
    /// # Errors
    /// [`RpcError`], as every request of this client.
    pub async fn account(&self, address: &Address) -> Result<Option<Account>, RpcError> {
        const METHOD: &str = "getAccountInfo";
        let config = json!({ "encoding": "base64", "commitment": self.commitment.name() });
        let value = answer::value(self.ask(METHOD, json!([address, config])).await?, METHOD)?;
        answer::account(*address, value, METHOD)
    }

    /// Several accounts, in the order asked. Each 100 of them are of one slot.
    ///
    /// # Errors
    /// [`RpcError`], as every request of this client.
    pub async fn accounts(&self, addresses: &[Address]) -> Result<Vec<Option<Account>>, RpcError> {
        const METHOD: &str = "getMultipleAccounts";
        let mut accounts = Vec::with_capacity(addresses.len());
        for some in addresses.chunks(KEYS_PER_CALL) {
            let config = json!({ "encoding": "base64", "commitment": self.commitment.name() });
            let answer = self.ask(METHOD, json!([some, config])).await?;
            let mut addresses = some.iter();
            accounts.extend(answer::list(answer::value(answer, METHOD)?, some.len(), METHOD, |value, method| {
                let address = addresses.next().expect("the list was checked to be as long as the question");
                answer::account(*address, value, method)
            })?);
        }
        Ok(accounts)
    }

    /// All accounts of a program that pass every filter, by address.
    ///
    /// # Errors
    /// [`RpcError`], as every request of this client; [`RpcError::Malformed`] too when an account does not pass.
    pub async fn program_accounts(&self, program: &Address, filters: &[Filter]) -> Result<Vec<Account>, RpcError> {
        const METHOD: &str = "getProgramAccounts";
        let wire: Vec<Value> = filters.iter().map(Filter::to_json).collect();
        let config = json!({ "encoding": "base64", "commitment": self.commitment.name(), "filters": wire });
        let answer = self.ask(METHOD, json!([program, config])).await?;
        let mut accounts = answer::keyed_accounts(answer, METHOD)?;
        if accounts.iter().any(|a| a.owner != *program || !filters.iter().all(|filter| filter.passes(&a.data))) {
            return Err(answer::malformed(METHOD, "an account is another program's, or does not pass the filters"));
        }
        accounts.sort_by_key(|account| account.address);
        Ok(accounts)
    }

    /// The lamports at an address; 0 when there is no account.
    ///
    /// # Errors
    /// [`RpcError`], as every request of this client.
    pub async fn balance(&self, address: &Address) -> Result<u64, RpcError> {
        const METHOD: &str = "getBalance";
        let answer = self.ask(METHOD, json!([address, self.config()])).await?;
        answer::number(&answer::value(answer, METHOD)?, METHOD)
    }

    /// The tokens in a token account, in base units; none when there is no such account.
    ///
    /// # Errors
    /// [`RpcError::Malformed`] when the account is no token account; otherwise as every request.
    pub async fn token_account(&self, address: &Address) -> Result<Option<spl::TokenAccount>, RpcError> {
        let Some(account) = self.account(address).await? else { return Ok(None) };
        let token = (account.owner == spl::TOKEN_PROGRAM).then(|| spl::TokenAccount::read(&account.data)).flatten();
        token.map(Some).ok_or_else(|| answer::malformed("getAccountInfo", &format!("{address} is no token account")))
    }

    /// The tokens in a token account, in base units, as the node counts them.
    ///
    /// # Errors
    /// [`RpcError::Refused`] when there is no such token account; otherwise as every request.
    pub async fn token_balance(&self, address: &Address) -> Result<u64, RpcError> {
        const METHOD: &str = "getTokenAccountBalance";
        let value = answer::value(self.ask(METHOD, json!([address, self.config()])).await?, METHOD)?;
        answer::amount(&value, METHOD)
    }

    /// All base units of a mint in existence.
    ///
    /// # Errors
    /// [`RpcError::Refused`] when there is no such mint; otherwise as every request.
    pub async fn token_supply(&self, mint: &Address) -> Result<u64, RpcError> {
        const METHOD: &str = "getTokenSupply";
        let value = answer::value(self.ask(METHOD, json!([mint, self.config()])).await?, METHOD)?;
        answer::amount(&value, METHOD)
    }

    /// The lamports that keep an account of so many bytes alive.
    ///
    /// # Errors
    /// [`RpcError`], as every request of this client.
    pub async fn rent(&self, bytes: u64) -> Result<u64, RpcError> {
        const METHOD: &str = "getMinimumBalanceForRentExemption";
        answer::number(&self.ask(METHOD, json!([bytes])).await?, METHOD)
    }

    /// Asks the cluster's faucet for lamports; only local chains and test clusters have one. Never repeated.
    ///
    /// # Errors
    /// [`RpcError`], as every request of this client.
    pub async fn airdrop(&self, address: &Address, lamports: u64) -> Result<Signature, RpcError> {
        const METHOD: &str = "requestAirdrop";
        answer::text(self.transport.call(METHOD, json!([address, lamports]), Repeat::Never).await?, METHOD)
    }

    /// Moves the clock of a local chain forward. Never repeated. Returns the clock after the move.
    ///
    /// # Errors
    /// [`RpcError::Refused`] on every chain that is not local; otherwise as every request.
    pub async fn warp(&self, seconds: u32) -> Result<spl::Clock, RpcError> {
        const METHOD: &str = "atoll_warp";
        let answer = self.transport.call(METHOD, json!([{ "seconds": seconds }]), Repeat::Never).await?;
        let unix_timestamp = answer["unixTimestamp"].as_i64();
        let unix_timestamp = unix_timestamp.ok_or_else(|| answer::malformed(METHOD, "the time is no number"))?;
        Ok(spl::Clock { slot: answer::number(&answer["slot"], METHOD)?, unix_timestamp })
    }

    /// Transactions that name an address and succeeded, newest first: a page of at most 1,000, of those before `before`.
    /// The page says what to ask next as well; none when there is nothing older. A node forgets what is old.
    ///
    /// # Errors
    /// [`RpcError`], as every request of this client.
    pub async fn signatures_of(
        &self,
        address: &Address,
        before: Option<Signature>,
    ) -> Result<(Vec<Signature>, Option<Signature>), RpcError> {
        const METHOD: &str = "getSignaturesForAddress";
        let commitment = self.commitment.max(Commitment::Confirmed).name();
        let config = json!({ "commitment": commitment, "limit": SIGNATURES_PER_PAGE, "before": before });
        let answer = self.ask(METHOD, json!([address, config])).await?;
        let Value::Array(items) = answer else { return Err(answer::malformed(METHOD, "it is no list")) };
        if items.len() > SIGNATURES_PER_PAGE {
            return Err(answer::malformed(METHOD, "its list is longer than was asked"));
        }
        let whole = items.len() == SIGNATURES_PER_PAGE;
        let mut signatures = Vec::with_capacity(items.len());
        let mut oldest = None;
        for item in items {
            let signature = answer::text(item["signature"].clone(), METHOD)?;
            oldest = Some(signature);
            if item["err"].is_null() {
                signatures.push(signature);
            }
        }
        Ok((signatures, oldest.filter(|_| whole)))
    }

    /// A transaction that succeeded, by its name; none when the node does not know it, it failed, or it has another form
    /// than this client's own. Its signatures are verified.
    ///
    /// # Errors
    /// [`RpcError::Malformed`] when it is another transaction than the one asked for; otherwise as every request.
    pub async fn transaction(&self, signature: &Signature) -> Result<Option<SignedTransaction>, RpcError> {
        const METHOD: &str = "getTransaction";
        let commitment = self.commitment.max(Commitment::Confirmed).name();
        let config = json!({ "encoding": "base64", "commitment": commitment, "maxSupportedTransactionVersion": 0 });
        let answer = self.ask(METHOD, json!([signature, config])).await?;
        if answer.is_null() || !answer["meta"]["err"].is_null() {
            return Ok(None);
        }
        let bytes = answer["transaction"][0].as_str().and_then(|text| BASE64.decode(text).ok());
        let bytes = bytes.ok_or_else(|| answer::malformed(METHOD, "the transaction is no base64"))?;
        match SignedTransaction::from_bytes(bytes) {
            Ok(transaction) if transaction.signature() == *signature => Ok(Some(transaction)),
            Ok(_) => Err(answer::malformed(METHOD, "it is another transaction")),
            Err(_) => Ok(None),
        }
    }

    /// The log of a processed transaction; empty when the node does not keep it.
    ///
    /// # Errors
    /// [`RpcError`], as every request of this client.
    pub async fn transaction_log(&self, signature: &Signature) -> Result<Vec<String>, RpcError> {
        let commitment = self.commitment.max(Commitment::Confirmed).name();
        let config = json!({ "encoding": "base64", "commitment": commitment, "maxSupportedTransactionVersion": 0 });
        let answer = self.ask("getTransaction", json!([signature, config])).await?;
        Ok(answer::log_lines(&answer["meta"]["logMessages"]))
    }
}

impl Filter {
    fn to_json(&self) -> Value {
        match self {
            Self::DataSize(bytes) => json!({ "dataSize": bytes }),
            Self::Bytes { offset, bytes } => {
                json!({ "memcmp": { "offset": offset, "bytes": bs58::encode(bytes).into_string(), "encoding": "base58" } })
            }
        }
    }

    /// Whether an account's bytes are wanted.
    #[must_use]
    pub fn passes(&self, data: &[u8]) -> bool {
        match self {
            Self::DataSize(bytes) => data.len() == *bytes,
            Self::Bytes { offset, bytes } => data.get(*offset..).is_some_and(|rest| rest.starts_with(bytes)),
        }
    }
}

/// A preflight failure knows the transaction's programs only here.
fn name_programs(error: RpcError, transaction: &SignedTransaction) -> RpcError {
    match error {
        RpcError::Failed(mut failure) => {
            if failure.program.is_none() {
                let programs = programs_of(transaction);
                failure.program = failure.instruction.and_then(|at| programs.get(usize::from(at)).copied());
            }
            RpcError::Failed(failure)
        }
        other => other,
    }
}

fn programs_of(transaction: &SignedTransaction) -> Vec<Address> {
    transaction.decoded().instructions.iter().map(|instruction| instruction.program).collect()
}
