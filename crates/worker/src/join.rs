//! `atoll worker join`: makes the device key, takes a place on the chain, stakes what its devices require, sets the ask.
//!
//! The only code of a worker that reads the supplier's wallet. Every step looks at the chain first, so joining again
//! after a failure (or with another ask) does only what is missing. Nothing is sent before it is known that the wallet
//! can pay for all of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use atoll_chain::keypair::KeyFileError;
use atoll_chain::market::data::{ASK, RegisterWorker, SetAsk};
use atoll_chain::market::layout::{
    CLASS_SAMPLED, Config as Parameters, FleetPage, GpuModel, SLOT_USED, SLOTS_MAX, Seat, Slot, Table as _,
};
use atoll_chain::market::{At, Market, ReadError, Table, address, arithmetic, instruction, layout};
use atoll_chain::rpc::RpcError;
use atoll_chain::{Address, Instruction, Keypair, Rpc, RpcConfig, spl};
use atoll_domain::key::Digest;
use atoll_domain::money::{Atl, UsdMicrosPerHour};
use atoll_domain::worker::SlotRef;

use crate::chain_view::key;
use crate::config::{Config, ConfigError, DEVICE_KEY_FILE, OperatorConfig};
use crate::link::dial::{DialError, Server};
use crate::link::tls::Tls;
use crate::outside::Outside;
use crate::probe::{PackError, read_packs};

/// How long one transaction may take.
const TRANSACTION_MAX: Duration = Duration::from_secs(60);
/// The device key's own lamports, for the transactions it sends itself: rent of an empty account and some 800 fees.
const DEVICE_LAMPORTS: u64 = 5_000_000;
/// Below this, the device key is given the rest again.
const DEVICE_LAMPORTS_LOW: u64 = 2_000_000;
/// Fee of one signature on Solana; joining sends at most four transactions with two signatures each.
const FEES_LAMPORTS: u64 = 8 * 5_000;

/// What `join` is told.
#[derive(Clone, Debug)]
pub struct JoinConfig {
    /// The worker's state folder; made when it is not there.
    pub state: PathBuf,
    /// The control plane, `https://host:port`.
    pub server: String,
    /// File with its certificate.
    pub ca: PathBuf,
    /// The chain's JSON-RPC.
    pub rpc: String,
    /// The supplier's wallet file. Read here and never again.
    pub wallet: PathBuf,
    /// The price to ask.
    pub ask: UsdMicrosPerHour,
    /// Address or host at which other workers reach this machine.
    pub advertise: String,
    /// Folders of packs.
    pub packs: Vec<PathBuf>,
    /// CPU devices to offer, 1 to 16.
    pub devices: u16,
    /// The TUN device, where it is not /dev/net/tun.
    pub tun_device: Option<PathBuf>,
}

/// What joining has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The device key.
    pub device_key: atoll_domain::key::PublicKey,
    /// The slot on the chain.
    pub slot: SlotRef,
    /// The network.
    pub network: Digest,
}

/// Why joining stopped. What was done before stays and is not done again.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error(transparent)]
    Key(#[from] KeyFileError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error(transparent)]
    Pack(#[from] PackError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Rpc(#[from] RpcError),
    #[error("{step} failed: {why}")]
    Transaction { step: &'static str, why: String },
    #[error("cannot make {path}: {source}", path = path.display())]
    State { path: PathBuf, source: std::io::Error },
    #[error("{0} devices: a worker offers 1 to 16")]
    Devices(u16),
    #[error("the catalogue of this network has no model `cpu`; its operator adds one with set_catalogue")]
    ModelUnknown,
    #[error(
        "this device key belongs to another supplier, {owner}; use that wallet, or another --state for a new worker"
    )]
    OtherSupplier { owner: Address },
    #[error("this device key was retired; use another --state for a new worker")]
    Retired,
    #[error(
        "this worker is registered with {registered} devices, and {wanted} were asked for; use another --state for a new worker"
    )]
    OtherDevices { registered: u8, wanted: u16 },
    #[error("{state} joined another network before; use another --state for this one", state = state.display())]
    OtherNetwork { state: PathBuf },
    #[error("all of this supplier's pages are full")]
    PagesFull,
    #[error(
        "wallet {wallet} has {have} lamports and joining needs {need}: send it {missing} more (0.000000001 SOL each)"
    )]
    LamportsShort { wallet: Address, have: u64, need: u64, missing: u64 },
    #[error("wallet {wallet} has {have} and the stake needs {need}: send it {missing} more")]
    AtlShort { wallet: Address, have: Atl, need: Atl, missing: Atl },
    #[error("a sum left the range of 64 bits")]
    Overflow,
}

impl From<layout_error::Error> for JoinError {
    fn from(_: layout_error::Error) -> Self {
        Self::Overflow
    }
}

/// The interface's error of a sum.
mod layout_error {
    pub(super) use atoll_chain::market::MarketError as Error;
}

/// What the chain says before anything is sent.
struct Place {
    parameters: At<Table<Parameters, Seat>>,
    model: GpuModel,
    /// The worker's slot, when it is registered.
    registered: Option<(Address, u16, Slot)>,
    /// The page to register on otherwise.
    page_no: u16,
    pages: Vec<At<Table<FleetPage, Slot>>>,
}

/// What is missing, and what it costs the wallet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bill {
    lamports: u64,
    stake: u64,
    register: bool,
    ask: bool,
    device_lamports: u64,
}

/// Joins, or finishes joining. `say` gets one line a step.
///
/// # Errors
/// [`JoinError`]; joining again goes on from where it stopped.
pub async fn join(config: &JoinConfig, outside: &dyn Outside, say: &mut dyn FnMut(&str)) -> Result<Joined, JoinError> {
    if !(1..=16).contains(&config.devices) {
        return Err(JoinError::Devices(config.devices));
    }
    // Everything that can be wrong on this machine first.
    config.server.parse::<Server>()?;
    Tls::new(&config.ca)?;
    let packs = read_packs(&config.packs)?;
    let wallet = Keypair::load(&config.wallet)?;
    let device = device_key(&config.state, outside, say)?;
    let mut seed = [0; 8];
    outside.fill(&mut seed);
    let market = Market::new(Rpc::new(RpcConfig::new(&config.rpc, u64::from_le_bytes(seed)))?);

    let place = look(&market, &wallet, &device, config).await?;
    let network = Digest(place.parameters.value.header.network_root);
    refuse_other_network(&config.state, network)?;
    let bill = bill(&market, &place, &wallet, &device, config).await?;
    check_funds(&market, &place, &wallet, bill).await?;
    let (page, slot) = register(&market, &place, &wallet, &device, bill, config, say).await?;
    pay(&market, &place, &wallet, &device, bill, say).await?;
    if bill.ask {
        say(&format!("setting the ask to {}", config.ask));
        let change = SetAsk { slot, change: ASK, ask_uusd: config.ask.0, lease_s_max: 0 };
        let ask = instruction::set_ask(wallet.address(), page, &change);
        send(&market, "setting the ask", &[ask], &wallet, &[]).await?;
    }
    let slot = SlotRef { page: key(page), slot };
    settings(config, network, slot, packs.into_iter().map(|(_, folder)| folder).collect()).save(&config.state)?;
    say("joined; start it with `atoll worker run`");
    Ok(Joined { device_key: key(device.address()), slot, network })
}

fn settings(config: &JoinConfig, network: Digest, slot: SlotRef, packs: Vec<PathBuf>) -> Config {
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    Config {
        server: None,
        ca: None,
        operators: vec![OperatorConfig { name: None, servers: vec![config.server.clone()], ca: absolute(&config.ca) }],
        rpc: config.rpc.clone(),
        advertise: config.advertise.clone(),
        packs,
        devices: config.devices,
        network,
        slot,
        tun_device: absolute(config.tun_device.as_deref().unwrap_or(Path::new("/dev/net/tun"))),
        bwrap: "/usr/bin/bwrap".into(),
        cgroup: None,
    }
}

/// The device key, made when there is none.
fn device_key(state: &Path, outside: &dyn Outside, say: &mut dyn FnMut(&str)) -> Result<Keypair, JoinError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(state);
    made.map_err(|source| JoinError::State { path: state.to_owned(), source })?;
    let path = state.join(DEVICE_KEY_FILE);
    if path.exists() {
        return Ok(Keypair::load(&path)?);
    }
    let mut seed = [0; 32];
    outside.fill(&mut seed);
    let device = Keypair::from_seed(&seed);
    device.save(&path)?;
    say(&format!("made the device key {}", device.address()));
    Ok(device)
}

fn refuse_other_network(state: &Path, network: Digest) -> Result<(), JoinError> {
    let nothing = std::collections::BTreeMap::new();
    match Config::load(state, &nothing, crate::config::Overrides::default()) {
        Ok(before) if before.network != network => Err(JoinError::OtherNetwork { state: state.to_owned() }),
        Ok(_) | Err(ConfigError::NotJoined { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

async fn look(market: &Market, wallet: &Keypair, device: &Keypair, config: &JoinConfig) -> Result<Place, JoinError> {
    let parameters = market.config().await?;
    let catalogue = market.catalogue().await?;
    let is_cpu = |model: &&GpuModel| model.name.split(|byte| *byte == 0).next() == Some(b"cpu");
    let model = *catalogue.value.rows.iter().find(is_cpu).ok_or(JoinError::ModelUnknown)?;
    let mut pages = market.pages_of(&wallet.address()).await?;
    pages.sort_by_key(|page| page.value.header.page_no);
    let mut registered = None;
    if let Some(known) = market.device(&device.address()).await? {
        if known.value.retired_at != 0 {
            return Err(JoinError::Retired);
        }
        let page_address = Address(known.value.page);
        let page = market.page(&page_address).await?.ok_or(JoinError::Retired)?;
        if page.value.header.supplier != wallet.address().0 {
            return Err(JoinError::OtherSupplier { owner: Address(page.value.header.supplier) });
        }
        let slot = page.value.rows.get(usize::from(known.value.slot)).copied().ok_or(JoinError::Retired)?;
        if u16::from(slot.devices) != config.devices {
            return Err(JoinError::OtherDevices { registered: slot.devices, wanted: config.devices });
        }
        registered = Some((page_address, known.value.slot, slot));
    }
    let page_no = page_with_room(&pages)?;
    Ok(Place { parameters, model, registered, page_no, pages })
}

/// The first page with a free slot, or the next one that is not there yet.
fn page_with_room(pages: &[At<Table<FleetPage, Slot>>]) -> Result<u16, JoinError> {
    let has_room = |page: &&At<Table<FleetPage, Slot>>| {
        page.value.rows.len() < SLOTS_MAX || page.value.rows.iter().any(|slot| slot.flags & SLOT_USED == 0)
    };
    match pages.iter().find(has_room) {
        Some(page) => Ok(page.value.header.page_no),
        None => u16::try_from(pages.len()).map_err(|_| JoinError::PagesFull),
    }
}

async fn bill(
    market: &Market,
    place: &Place,
    wallet: &Keypair,
    device: &Keypair,
    config: &JoinConfig,
) -> Result<Bill, JoinError> {
    let rpc = market.rpc();
    let register = place.registered.is_none();
    let mut lamports = FEES_LAMPORTS;
    if register {
        let page = place.pages.iter().find(|page| page.value.header.page_no == place.page_no);
        let rows = page.map_or(0, |page| page.value.rows.len());
        let grown = rpc.rent(bytes(FleetPage::size_with(rows + 1))).await?;
        let paid = if page.is_some() { rpc.rent(bytes(FleetPage::size_with(rows))).await? } else { 0 };
        lamports += grown.saturating_sub(paid);
        lamports += rpc.rent(bytes(size_of::<layout::DeviceKey>())).await?;
    }
    let first = place.pages.iter().find(|page| page.value.header.page_no == 0);
    let (own, required) = first.map_or((0, 0), |page| (page.value.header.own, page.value.header.required));
    let more = if register { stake_required(&place.parameters.value.header, &place.model, config.devices)? } else { 0 };
    let stake = arithmetic::add(required, more)?.saturating_sub(own);
    let vault = address::stake_vault(&address::page(&wallet.address(), 0));
    if stake > 0 && rpc.account(&vault).await?.is_none() {
        lamports += rpc.rent(165).await?;
    }
    let held = rpc.balance(&device.address()).await?;
    let device_lamports = if held < DEVICE_LAMPORTS_LOW { DEVICE_LAMPORTS - held } else { 0 };
    lamports += device_lamports;
    // The fee payer's own account must stay above the rent of an empty one.
    lamports += rpc.rent(0).await?;
    let ask = place.registered.as_ref().is_some_and(|(_, _, slot)| slot.ask_uusd != config.ask.0);
    Ok(Bill { lamports, stake, register, ask, device_lamports })
}

fn bytes(size: usize) -> u64 {
    u64::try_from(size).unwrap_or(u64::MAX)
}

/// What the program will require of these devices: stake per device × devices × max(1, multiplier).
fn stake_required(parameters: &Parameters, model: &GpuModel, devices: u16) -> Result<u64, JoinError> {
    let each = arithmetic::mul(parameters.stake_per_device, u64::from(devices))?;
    Ok(arithmetic::mul_div(each, u64::from(model.multiplier_milli.max(1_000)), 1_000)?)
}

fn source(place: &Place, wallet: &Keypair) -> (Address, Address) {
    let mint = Address(place.parameters.value.header.mint);
    (spl::associated_token_address(&wallet.address(), &mint), mint)
}

async fn check_funds(market: &Market, place: &Place, wallet: &Keypair, bill: Bill) -> Result<(), JoinError> {
    let (wallet, source) = (wallet.address(), source(place, wallet).0);
    let have = market.rpc().balance(&wallet).await?;
    if have < bill.lamports {
        let missing = bill.lamports - have;
        return Err(JoinError::LamportsShort { wallet, have, need: bill.lamports, missing });
    }
    let have = market.rpc().token_account(&source).await?.map_or(0, |account| account.amount);
    if have < bill.stake {
        let missing = Atl(bill.stake - have);
        return Err(JoinError::AtlShort { wallet, have: Atl(have), need: Atl(bill.stake), missing });
    }
    Ok(())
}

async fn register(
    market: &Market,
    place: &Place,
    wallet: &Keypair,
    device: &Keypair,
    bill: Bill,
    config: &JoinConfig,
    say: &mut dyn FnMut(&str),
) -> Result<(Address, u16), JoinError> {
    if let (false, Some((page, slot, _))) = (bill.register, &place.registered) {
        say(&format!("already registered in slot {slot} of page {page}"));
        return Ok((*page, *slot));
    }
    say(&format!("registering {} CPU device(s) at {}", config.devices, config.ask));
    let worker = RegisterWorker {
        page_no: place.page_no,
        model: place.model.id,
        region: 0,
        devices: u8::try_from(config.devices).map_err(|_| JoinError::Devices(config.devices))?,
        class: CLASS_SAMPLED,
        ask_uusd: config.ask.0,
        lease_s_max: 0,
    };
    let registering = instruction::register_worker(wallet.address(), device.address(), &worker);
    send(market, "registering the worker", &[registering], wallet, &[device]).await?;
    let known = market.device(&device.address()).await?;
    let known = known.ok_or(JoinError::Transaction {
        step: "registering the worker",
        why: "the chain confirmed it and does not show it; join again".into(),
    })?;
    Ok((Address(known.value.page), known.value.slot))
}

async fn pay(
    market: &Market,
    place: &Place,
    wallet: &Keypair,
    device: &Keypair,
    bill: Bill,
    say: &mut dyn FnMut(&str),
) -> Result<(), JoinError> {
    if bill.stake > 0 {
        let (source, mint) = source(place, wallet);
        say(&format!("staking {}", Atl(bill.stake)));
        let staking = instruction::stake(wallet.address(), source, mint, bill.stake);
        send(market, "staking", &[staking], wallet, &[]).await?;
    }
    if bill.device_lamports > 0 {
        say(&format!("giving the device key {} lamports for its own transactions", bill.device_lamports));
        let transfer = spl::system_transfer(wallet.address(), device.address(), bill.device_lamports);
        send(market, "funding the device key", &[transfer], wallet, &[]).await?;
    }
    Ok(())
}

async fn send(
    market: &Market,
    step: &'static str,
    instructions: &[Instruction],
    payer: &Keypair,
    signers: &[&Keypair],
) -> Result<(), JoinError> {
    let sent = market.rpc().execute(instructions, payer, signers, TRANSACTION_MAX).await;
    sent.map(drop).map_err(|error| JoinError::Transaction { step, why: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outside::still::Still;

    fn page(page_no: u16, rows: Vec<Slot>) -> At<Table<FleetPage, Slot>> {
        let mut header = FleetPage::new();
        header.page_no = page_no;
        At { address: Address([7; 32]), value: Table { header, rows } }
    }

    #[test]
    fn the_first_page_with_room_is_taken() {
        let used = Slot { flags: SLOT_USED, ..Slot::ZERO };
        assert_eq!(page_with_room(&[]).unwrap(), 0);
        assert_eq!(page_with_room(&[page(0, vec![used])]).unwrap(), 0);
        assert_eq!(page_with_room(&[page(0, vec![used; SLOTS_MAX])]).unwrap(), 1);
        let mut freed = vec![used; SLOTS_MAX];
        freed[5] = Slot::ZERO;
        assert_eq!(page_with_room(&[page(0, vec![used; SLOTS_MAX]), page(1, freed)]).unwrap(), 1);
    }

    #[test]
    fn stake_grows_with_devices_and_the_multiplier_above_one() {
        let mut parameters = Parameters::new();
        parameters.stake_per_device = 200;
        let model = |multiplier_milli| GpuModel { multiplier_milli, ..GpuModel::ZERO };
        assert_eq!(stake_required(&parameters, &model(100), 2).unwrap(), 400);
        assert_eq!(stake_required(&parameters, &model(2_500), 2).unwrap(), 1_000);
        parameters.stake_per_device = u64::MAX;
        assert!(matches!(stake_required(&parameters, &model(1), 2), Err(JoinError::Overflow)));
    }

    #[test]
    fn the_device_key_is_made_once() {
        let state = tempfile::tempdir().unwrap();
        let mut said = vec![];
        let mut make = || device_key(state.path(), &Still::at(0), &mut |line| said.push(line.to_owned())).unwrap();
        assert_eq!(make().address(), make().address());
        assert_eq!(said.len(), 1);
    }
}
