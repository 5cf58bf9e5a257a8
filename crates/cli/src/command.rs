//! The tree of client commands, and the one place where one is carried out.

use std::path::PathBuf;
use std::process::ExitCode;

use atoll_domain::id::{ClusterId, JobId};
use atoll_domain::key::{Digest, PublicKey};
use clap::Subcommand;

use crate::account::{self, Login};
use crate::exit::{Exit, Failure};
use crate::extend::{self, Extend};
use crate::market::budget::{self, Budget, lamports};
use crate::market::costake::{self, CoStake};
use crate::market::fleet::{self, MarketView};
use crate::market::order::{self, Order};
use crate::market::stake::{self, Stake};
use crate::output::Output;
use crate::session::Session;
use crate::submit::{self, Submit};
use crate::{jobs, receipts};

/// What a developer types after `atoll`.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Write the profile: operator, wallet, chain; pin the network root
    #[command(
        after_help = "Example:\n  ATOLL_API_KEY=atoll_key_... atoll login --server https://127.0.0.1:8443 \\\n    --ca cert.pem --wallet wallet.json --rpc http://127.0.0.1:8899"
    )]
    Login(Login),
    /// What devices there are, and from what price
    #[command(subcommand)]
    Gpu(Gpu),
    /// Run something to completion on rented devices
    #[command(subcommand)]
    Job(Job),
    /// Print a job's own output
    #[command(after_help = "Example:\n  atoll logs job_01j... --follow")]
    Logs {
        /// The job
        job: JobId,
        /// Go on until the job has ended
        #[arg(long, short)]
        follow: bool,
    },
    /// Clusters of your jobs
    #[command(subcommand)]
    Cluster(Cluster),
    /// Signed records of what ran and what it cost
    #[command(subcommand)]
    Receipt(Receipts),
    /// Your wallet
    #[command(subcommand)]
    Wallet(Wallet),
    /// Your API key
    #[command(subcommand)]
    Key(Key),
    /// What a supplier has at stake
    #[command(subcommand)]
    Stake(Stake),
    /// Stake that one puts under another's workers
    #[command(subcommand)]
    Costake(CoStake),
    /// Session keys that order within limits, without the wallet
    #[command(subcommand)]
    Budget(Budget),
    /// Your orders as the chain has them
    #[command(subcommand)]
    Order(Order),
    /// Asks and suppliers as the chain shows them
    #[command(subcommand)]
    Market(MarketView),
}

/// `atoll gpu …`
#[derive(Clone, Debug, Subcommand)]
pub enum Gpu {
    /// List device models with free devices and lowest ask
    #[command(after_help = "Example:\n  atoll gpu list --json")]
    List,
}

/// `atoll job …`
#[derive(Clone, Debug, Subcommand)]
pub enum Job {
    /// Submit a folder; shows price and worst case, then escrows and runs it
    #[command(
        after_help = "Examples:\n  atoll job submit examples/digits --devices 3\n  atoll job submit . --entry \"python train.py\" --model cpu --pack ray-torch --max-price 0.20 --yes"
    )]
    Submit(Submit),
    /// List your jobs, newest first
    #[command(after_help = "Example:\n  atoll job list")]
    List,
    /// Show one job with its pods
    #[command(after_help = "Example:\n  atoll job show job_01j...")]
    Show {
        /// The job
        job: JobId,
    },
    /// What happened to a job so far, for scripts
    #[command(after_help = "Example:\n  atoll job events job_01j... --after 12 --wait 20 --json")]
    Events {
        /// The job
        job: JobId,
        /// Only what came after this number
        #[arg(long, value_name = "SEQ", default_value_t = 0)]
        after: u64,
        /// Wait up to so many seconds for the first
        #[arg(long, value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=30))]
        wait: u32,
    },
    /// Watch a job to its end
    #[command(after_help = "Example:\n  atoll job watch job_01j...")]
    Watch {
        /// The job
        job: JobId,
    },
    /// Give a job that runs more time; shows price and worst case, then escrows it
    #[command(
        after_help = "Examples:\n  atoll job extend job_01j... --hours 2\n  atoll job extend --order 7Xk3... --hours 0.5 --yes"
    )]
    Extend(Extend),
    /// Stop a job; what was served is paid, the rest refunded
    #[command(after_help = "Example:\n  atoll job stop job_01j...")]
    Stop {
        /// The job
        job: JobId,
        /// The session key's file that ordered it, in the wallet's stead
        #[arg(long, value_name = "FILE")]
        budget: Option<PathBuf>,
    },
}

/// `atoll cluster …`
#[derive(Clone, Debug, Subcommand)]
pub enum Cluster {
    /// List the clusters of your jobs
    #[command(after_help = "Example:\n  atoll cluster list")]
    List,
    /// Show a cluster's pods with their overlay addresses
    #[command(after_help = "Example:\n  atoll cluster show clu_01j...")]
    Show {
        /// The cluster
        cluster: ClusterId,
    },
}

/// `atoll receipt …`
#[derive(Clone, Debug, Subcommand)]
pub enum Receipts {
    /// Show a receipt, from the operator or from a file
    #[command(after_help = "Example:\n  atoll receipt show job_01j... --output receipt.json")]
    Show {
        /// A job's id, or a receipt's file
        #[arg(value_name = "JOB|FILE")]
        what: String,
        /// Keep the receipt in a file
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Check a receipt with no network, starting from a pinned network root
    #[command(after_help = "Example:\n  atoll receipt verify receipt.json --network-root 5f1c...")]
    Verify {
        /// The receipt's file
        file: PathBuf,
        /// The root to start from [default: the profile's]
        #[arg(long, value_name = "HEX")]
        network_root: Option<Digest>,
    },
}

/// `atoll wallet …`
#[derive(Clone, Debug, Subcommand)]
pub enum Wallet {
    /// Show address and balances
    #[command(after_help = "Example:\n  atoll wallet show --json")]
    Show,
    /// Show the balances of any address
    #[command(after_help = "Example:\n  atoll wallet balance 7Yk...")]
    Balance {
        /// The address
        address: PublicKey,
    },
    /// Ask the faucet for SOL; local chains and test clusters have one
    #[command(after_help = "Example:\n  atoll wallet airdrop 2")]
    Airdrop {
        /// How much, in SOL
        #[arg(value_parser = lamports)]
        sol: u64,
        /// To whom [default: your wallet]
        #[arg(long, value_name = "ADDRESS")]
        to: Option<PublicKey>,
    },
    /// Make a new wallet
    #[command(after_help = "Example:\n  atoll wallet new wallet.json")]
    New {
        /// Where its key is written
        file: PathBuf,
    },
}

/// `atoll key …`
#[derive(Clone, Debug, Subcommand)]
pub enum Key {
    /// Show whose API key the profile holds
    #[command(after_help = "Example:\n  atoll key show")]
    Show,
}

/// Carries a command out on a runtime of its own and gives the process's status. Prints everything there is to print.
#[must_use]
pub fn run(command: Command, json: bool) -> ExitCode {
    let out = Output::detect(json);
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Internal, "runtime", error.to_string()))
        .and_then(|runtime| runtime.block_on(Box::pin(dispatch(out, command))));
    let exit = outcome.unwrap_or_else(|failure| {
        out.failure(&failure);
        failure.exit
    });
    ExitCode::from(exit.status())
}

async fn dispatch(out: Output, command: Command) -> Result<Exit, Failure> {
    let session = || Session::open(out);
    match command {
        Command::Login(args) => account::login(out, args).await,
        Command::Gpu(Gpu::List) => jobs::gpus(&session()?).await,
        Command::Job(Job::Submit(args)) => submit::run(out, args).await,
        Command::Job(Job::List) => jobs::list(&session()?).await,
        Command::Job(Job::Show { job }) => jobs::show(&session()?, job).await,
        Command::Job(Job::Events { job, after, wait }) => jobs::events(&session()?, job, after, wait).await,
        Command::Job(Job::Watch { job }) => jobs::watch(&session()?, job).await,
        Command::Job(Job::Extend(args)) => extend::run(&session()?, args).await,
        Command::Job(Job::Stop { job, budget }) => jobs::stop(&session()?, job, budget.as_deref()).await,
        Command::Logs { job, follow } => jobs::logs(&session()?, job, follow).await,
        Command::Cluster(Cluster::List) => jobs::clusters(&session()?).await,
        Command::Cluster(Cluster::Show { cluster }) => jobs::cluster(&session()?, cluster).await,
        Command::Receipt(Receipts::Show { what, output }) => receipts::show(out, &what, output.as_deref()).await,
        Command::Receipt(Receipts::Verify { file, network_root }) => receipts::check(out, &file, network_root),
        Command::Wallet(Wallet::Show) => account::wallet(&session()?).await,
        Command::Wallet(Wallet::New { file }) => account::wallet_new(out, &file),
        Command::Wallet(Wallet::Balance { address }) => account::balance(&session()?, address).await,
        Command::Wallet(Wallet::Airdrop { sol, to }) => account::airdrop(&session()?, sol, to).await,
        Command::Stake(verb) => stake::run(out, verb).await,
        Command::Costake(verb) => costake::run(out, verb).await,
        Command::Budget(verb) => budget::run(out, verb).await,
        Command::Order(verb) => order::run(out, verb).await,
        Command::Market(verb) => fleet::run(out, verb).await,
        Command::Key(Key::Show) => account::key(&session()?).await,
    }
}
