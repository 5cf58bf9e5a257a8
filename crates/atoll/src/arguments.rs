//! What may be typed: the roles of the binary, and below them the client's commands.

use std::net::SocketAddr;
use std::path::PathBuf;

use atoll_cli::span::Span;
use atoll_domain::key::PublicKey;
use atoll_domain::money::UsdMicrosPerHour;
use clap::{Args, Parser, Subcommand};

const AFTER: &str = "Try it:
  atoll dev --workers 4 --state ./atoll-dev
  ATOLL_HOME=./atoll-dev/client atoll job submit examples/digits

Exit status: 0 done, 1 defect, 2 usage, 3 refused, 4 unreachable, 5 job failed,
  6 receipt not valid, 7 another network than the pinned one, 130 interrupted.
NO_COLOR turns colour off.";

/// One AI cloud out of machines that belong to many
#[derive(Debug, Parser)]
#[command(name = "atoll", version, after_help = AFTER, arg_required_else_help = true)]
pub(crate) struct Arguments {
    /// Print one JSON value instead of text
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) role: Role,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Role {
    /// A whole network on this machine: chain, control plane, workers
    #[command(
        after_help = "Examples:\n  atoll dev --workers 4 --state ./atoll-dev\n  atoll dev warp 14d --state ./atoll-dev"
    )]
    Dev(Dev),
    /// A control-plane node: API and worker links on one TLS port
    #[command(
        after_help = "Example:\n  atoll server --state /var/lib/atoll --rpc http://127.0.0.1:8899 --store-file /etc/atoll/store"
    )]
    Server(Server),
    /// The supplier's side: lend this machine's devices
    #[command(subcommand)]
    Worker(Worker),
    /// For operators
    #[command(subcommand)]
    Admin(Admin),
    /// Print a completion script for a shell
    #[command(after_help = "Example:\n  atoll completions bash > ~/.local/share/bash-completion/completions/atoll")]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// The embedded chain behind Solana's JSON-RPC; `atoll dev` starts it
    #[command(hide = true)]
    LocalChain(LocalChain),
    #[command(flatten)]
    Client(atoll_cli::command::Command),
}

/// `atoll dev`
#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Dev {
    #[command(subcommand)]
    pub(crate) verb: Option<DevVerb>,
    /// How many workers, each its own process, wallet and device
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) workers: u16,
    /// Folder of the whole network; the same folder goes on where it stopped
    #[arg(long, default_value = "atoll-dev")]
    pub(crate) state: PathBuf,
    /// Python packs that the workers offer [default: all in $ATOLL_PACKS, else target/packs]
    #[arg(long, value_name = "DIR")]
    pub(crate) pack: Vec<PathBuf>,
    /// Place jobs only on workers that can hold pods to their limits
    #[arg(long, default_value = "no", value_parser = ["yes", "no"])]
    pub(crate) strangers: String,
    /// The control plane's store: sqlite:PATH or postgres://… [default: SQLite in the state folder]
    #[arg(long)]
    pub(crate) store: Option<String>,
    /// Waiting times of a new network: `local` has minutes where the design's `default` has days
    #[arg(long, default_value = "local", value_parser = ["local", "default"])]
    pub(crate) rules: String,
}

/// `atoll dev …`
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum DevVerb {
    /// Move the chain's clock forward, and the price feed with it; leases whose end comes end. Refused elsewhere
    #[command(after_help = "Example:\n  atoll dev warp 14d --state ./atoll-dev")]
    Warp {
        /// How far, for example 14d
        by: Span,
        /// Folder of the network that runs
        #[arg(long, default_value = "atoll-dev")]
        state: PathBuf,
        /// A local chain's JSON-RPC instead, started by hand
        #[arg(long, conflicts_with = "state")]
        rpc: Option<String>,
    },
}

/// `atoll server`
#[derive(Clone, Debug, Args)]
pub(crate) struct Server {
    /// Configuration file (TOML); flags stand above it
    #[arg(long, value_name = "FILE", env = "ATOLL_SERVER_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// The node's folder: certificate, keys, and by default store and objects
    #[arg(long, env = "ATOLL_SERVER_STATE")]
    pub(crate) state: Option<PathBuf>,
    /// Where API and links listen; port 0 takes a free one [default: 127.0.0.1:8443]
    #[arg(long, env = "ATOLL_SERVER_LISTEN")]
    pub(crate) listen: Option<SocketAddr>,
    /// A name or address that the certificate is also made for
    #[arg(long = "name", value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// Where workers, clients and the operator's other nodes reach this node, `https://…`; without it, where it listens
    #[arg(long)]
    pub(crate) url: Option<String>,
    /// The chain's Solana JSON-RPC
    #[arg(long, env = "ATOLL_SERVER_RPC")]
    pub(crate) rpc: Option<String>,
    /// sqlite:PATH or postgres://… [default: SQLite in the state folder]. Others on this machine can read it here: give
    /// one with a password by --store-file or the environment
    #[arg(long, env = "ATOLL_SERVER_STORE", hide_env_values = true)]
    pub(crate) store: Option<String>,
    /// A file with the store's URL on one line, readable by its owner only
    #[arg(long, value_name = "FILE", env = "ATOLL_SERVER_STORE_FILE", conflicts_with = "store")]
    pub(crate) store_file: Option<PathBuf>,
    /// Folder of blobs, checkpoints and kept output
    #[arg(long, value_name = "DIR")]
    pub(crate) objects: Option<PathBuf>,
    /// Where the port is written once the node listens
    #[arg(long, value_name = "FILE")]
    pub(crate) port_file: Option<PathBuf>,
    /// Place jobs only on workers that can hold pods to their limits [default: yes]
    #[arg(long, value_parser = ["yes", "no"])]
    pub(crate) strangers: Option<String>,
}

/// `atoll worker …`
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Worker {
    /// Register this machine on the chain: device key, stake, ask. Again is harmless
    #[command(
        after_help = "Example:\n  atoll worker join --state /var/lib/atoll-worker --server https://atoll.example:8443 --ca cert.pem \\\n    --rpc http://127.0.0.1:8899 --wallet supplier.json --ask 0.05 --advertise 203.0.113.7 --pack packs/ray-torch"
    )]
    Join(Join),
    /// Run the agent until it is stopped; pods outlive a restart
    #[command(after_help = "Example:\n  atoll worker run --state /var/lib/atoll-worker")]
    Run {
        /// The worker's folder, as `join` made it
        #[arg(long)]
        state: PathBuf,
    },
    /// Say what this machine can do, what is missing, and how to cure it
    #[command(after_help = "Example:\n  atoll worker doctor --state /var/lib/atoll-worker")]
    Doctor {
        /// The worker's folder
        #[arg(long)]
        state: PathBuf,
    },
}

/// `atoll worker join`
#[derive(Clone, Debug, Args)]
pub(crate) struct Join {
    /// The worker's folder
    #[arg(long)]
    pub(crate) state: PathBuf,
    /// The operator's address
    #[arg(long)]
    pub(crate) server: String,
    /// The certificate that the server must show (PEM)
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: PathBuf,
    /// The chain's Solana JSON-RPC
    #[arg(long)]
    pub(crate) rpc: String,
    /// The supplier's key file; only this command reads it
    #[arg(long, value_name = "FILE")]
    pub(crate) wallet: PathBuf,
    /// Ask in USD per device-hour
    #[arg(long, value_name = "USD")]
    pub(crate) ask: UsdMicrosPerHour,
    /// Address at which other workers' pods reach this machine
    #[arg(long, value_name = "HOST")]
    pub(crate) advertise: String,
    /// A Python pack that pods may use
    #[arg(long, value_name = "DIR", required = true)]
    pub(crate) pack: Vec<PathBuf>,
    /// CPU devices to offer, 1 to 16
    #[arg(long, default_value_t = 1)]
    pub(crate) devices: u16,
    /// The TUN device, where it is not /dev/net/tun
    #[arg(long, value_name = "FILE")]
    pub(crate) tun_device: Option<PathBuf>,
}

/// `atoll admin …`
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Admin {
    /// API keys
    #[command(subcommand)]
    Key(AdminKey),
}

/// `atoll admin key …`
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum AdminKey {
    /// Make an API key for a user and print it once
    #[command(after_help = "Example:\n  atoll admin key create --state /var/lib/atoll --user ada --wallet 7Yk...")]
    Create {
        /// The control node's folder
        #[arg(long)]
        state: PathBuf,
        /// The store, where it is not the folder's own SQLite
        #[arg(long, hide_env_values = true, env = "ATOLL_SERVER_STORE")]
        store: Option<String>,
        /// A file with the store's URL on one line, readable by its owner only
        #[arg(long, value_name = "FILE", env = "ATOLL_SERVER_STORE_FILE", conflicts_with = "store")]
        store_file: Option<PathBuf>,
        /// The user's name
        #[arg(long)]
        user: String,
        /// The wallet that may sign for the user
        #[arg(long, value_name = "PUBKEY")]
        wallet: PublicKey,
    },
}

/// `atoll local-chain`
#[derive(Clone, Debug, Args)]
pub(crate) struct LocalChain {
    /// Folder of the chain's log
    #[arg(long)]
    pub(crate) state: PathBuf,
    /// Where its JSON-RPC listens; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:8899")]
    pub(crate) listen: SocketAddr,
    /// Where the port is written once it listens
    #[arg(long, value_name = "FILE")]
    pub(crate) port_file: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_tree_is_sound() {
        Arguments::command().debug_assert();
    }
}
