//! `atoll market`: what the chain shows of supply, with no operator's word in between.

use std::collections::BTreeMap;

use atoll_chain::market::layout::{
    FleetPage, GpuModel, SLOT_DRAINING, SLOT_SLASHED, SLOT_SUSPENDED, SLOT_USED, Slot, TIER_ENTERPRISE,
};
use atoll_chain::market::{At, Table};
use atoll_domain::key::PublicKey;
use atoll_domain::money::{Atl, UsdMicrosPerHour};
use serde::Serialize;

use super::OnChain;
use crate::chain::model_name;
use crate::exit::{Exit, Failure};
use crate::output::{Output, length, table};

type Page = At<Table<FleetPage, Slot>>;

/// `atoll market …`
#[derive(Clone, Debug, clap::Subcommand)]
pub enum MarketView {
    /// What is asked for devices that can be leased now, cheapest first
    #[command(after_help = "Example:\n  atoll market asks --model cpu --max-price 0.20")]
    Asks {
        /// Only this model
        #[arg(long)]
        model: Option<String>,
        /// Only asks up to this, in USD per device-hour
        #[arg(long, value_name = "USD")]
        max_price: Option<UsdMicrosPerHour>,
        /// Only this region's number
        #[arg(long)]
        region: Option<u16>,
    },
    /// Suppliers with their workers, devices and stake
    #[command(after_help = "Example:\n  atoll market fleets --json")]
    Fleets {
        /// Only this supplier
        #[arg(long, value_name = "ADDRESS")]
        supplier: Option<PublicKey>,
        /// Only suppliers that have this model
        #[arg(long)]
        model: Option<String>,
    },
}

/// Devices of one model, place and ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Ask {
    model: String,
    ask: UsdMicrosPerHour,
    region: u16,
    /// `community` or `enterprise`.
    tier: &'static str,
    /// The longest lease, seconds; none is any.
    lease_s_max: Option<u32>,
    free: u32,
    workers: u32,
}

/// One supplier. Amounts are base units, 10^-9 ATL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Fleet {
    supplier: PublicKey,
    workers: u32,
    devices: u32,
    leased: u32,
    /// Workers that take no new lease.
    resting: u32,
    own: Atl,
    costake: Atl,
    required: Atl,
    strikes: u32,
}

/// Carries a verb out.
///
/// # Errors
/// [`Failure`] when the chain cannot be read.
pub async fn run(out: Output, verb: MarketView) -> Result<Exit, Failure> {
    let on = OnChain::open(out).await?;
    let pages = on.market.pages().await?;
    let models = on.market.catalogue().await?.value.rows;
    match verb {
        MarketView::Asks { model, max_price, region } => {
            let mut all = asks(&pages, &models);
            all.retain(|ask| {
                model.as_ref().is_none_or(|model| ask.model == *model)
                    && max_price.is_none_or(|most| ask.ask <= most)
                    && region.is_none_or(|region| ask.region == region)
            });
            show_asks(&on, &all)
        }
        MarketView::Fleets { supplier, model } => {
            let id = match model {
                Some(model) => Some(on.chain.model(&model).await?.id),
                None => None,
            };
            let mut all = fleets(&pages, id);
            all.retain(|fleet| supplier.is_none_or(|supplier| fleet.supplier == supplier));
            show_fleets(&on, &all)
        }
    }
}

const fn takes_leases(slot: &Slot) -> bool {
    slot.flags & (SLOT_USED | SLOT_SUSPENDED | SLOT_DRAINING | SLOT_SLASHED) == SLOT_USED
}

/// Suppliers whose stake is below what their devices require serve nobody new.
fn is_backed(page: &FleetPage) -> bool {
    page.own.saturating_add(page.costake) >= page.required
}

fn asks(pages: &[Page], models: &[GpuModel]) -> Vec<Ask> {
    let names: BTreeMap<u16, String> = models.iter().map(|model| (model.id, model_name(model))).collect();
    let suppliers: BTreeMap<[u8; 32], FleetPage> = pages
        .iter()
        .filter(|page| page.value.header.page_no == 0)
        .map(|page| (page.value.header.supplier, page.value.header))
        .collect();
    let mut groups: BTreeMap<_, (u32, u32)> = BTreeMap::new();
    let backed = pages.iter().filter(|page| suppliers.get(&page.value.header.supplier).is_some_and(is_backed));
    for slot in backed.flat_map(|page| &page.value.rows).filter(|slot| takes_leases(slot)) {
        let free = u32::from(slot.devices).saturating_sub(slot.leased_mask.count_ones());
        if free > 0 {
            let group =
                groups.entry((slot.ask_uusd, slot.model, slot.region, slot.tier, slot.lease_s_max)).or_default();
            *group = (group.0 + free, group.1 + 1);
        }
    }
    let ask = |((ask, model, region, tier, lease_s_max), (free, workers)): (_, _)| Ask {
        model: names.get(&model).cloned().unwrap_or_else(|| format!("model {model}")),
        ask: UsdMicrosPerHour(ask),
        region,
        tier: if tier == TIER_ENTERPRISE { "enterprise" } else { "community" },
        lease_s_max: (lease_s_max != 0).then_some(lease_s_max),
        free,
        workers,
    };
    groups.into_iter().map(ask).collect()
}

fn fleets(pages: &[Page], model: Option<u16>) -> Vec<Fleet> {
    let mut all: BTreeMap<[u8; 32], Fleet> = BTreeMap::new();
    let mut with_model = std::collections::BTreeSet::new();
    for page in pages {
        let header = &page.value.header;
        let fleet = all.entry(header.supplier).or_insert_with(|| Fleet {
            supplier: PublicKey(header.supplier),
            workers: 0,
            devices: 0,
            leased: 0,
            resting: 0,
            own: Atl(0),
            costake: Atl(0),
            required: Atl(0),
            strikes: 0,
        });
        if header.page_no == 0 {
            (fleet.own, fleet.costake) = (Atl(header.own), Atl(header.costake));
            (fleet.required, fleet.strikes) = (Atl(header.required), header.strikes);
        }
        for slot in page.value.rows.iter().filter(|slot| slot.flags & SLOT_USED != 0) {
            fleet.workers += 1;
            fleet.devices += u32::from(slot.devices);
            fleet.leased += slot.leased_mask.count_ones();
            fleet.resting += u32::from(!takes_leases(slot));
            if Some(slot.model) == model {
                with_model.insert(header.supplier);
            }
        }
    }
    all.into_values().filter(|fleet| model.is_none() || with_model.contains(&fleet.supplier.0)).collect()
}

fn show_asks(on: &OnChain, all: &[Ask]) -> Result<Exit, Failure> {
    on.out.result(&all, || {
        if all.is_empty() {
            return "nothing can be leased now that fits; `atoll market fleets` shows who is there".into();
        }
        let row = |one: &Ask| {
            let longest = one.lease_s_max.map_or_else(|| "any".to_owned(), |most| length(u64::from(most)));
            let counts = [one.free, one.workers].map(|count| count.to_string());
            let place = [one.region.to_string(), one.tier.to_owned(), longest];
            [&[one.model.clone(), one.ask.to_string()][..], &counts, &place].concat()
        };
        let rows: Vec<Vec<String>> = all.iter().map(row).collect();
        table(&["MODEL", "ASK", "FREE", "WORKERS", "REGION", "TIER", "LONGEST"], &rows)
    })?;
    Ok(Exit::Ok)
}

fn show_fleets(on: &OnChain, all: &[Fleet]) -> Result<Exit, Failure> {
    on.out.result(&all, || {
        if all.is_empty() {
            return "no supplier; `atoll worker join` makes one".into();
        }
        let row = |one: &Fleet| {
            let counts = [one.workers, one.devices, one.leased, one.resting].map(|count| count.to_string());
            let sums = [one.own, one.costake, one.required].map(|amount| amount.to_string());
            [&[one.supplier.to_string()][..], &counts, &sums, &[one.strikes.to_string()]].concat()
        };
        let rows: Vec<Vec<String>> = all.iter().map(row).collect();
        let head =
            ["SUPPLIER", "WORKERS", "DEVICES", "LEASED", "RESTING", "OWN STAKE", "CO-STAKE", "REQUIRED", "STRIKES"];
        table(&head, &rows)
    })?;
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;
    use atoll_chain::Address;

    fn slot(ask_uusd: u64, devices: u8, leased_mask: u16, flags: u8) -> Slot {
        Slot { ask_uusd, devices, leased_mask, flags, model: 1, ..Slot::ZERO }
    }

    fn page(supplier: u8, page_no: u16, own: u64, rows: Vec<Slot>) -> Page {
        let header = FleetPage { supplier: [supplier; 32], page_no, own, required: 10, ..FleetPage::new() };
        At { address: Address([supplier; 32]), value: Table { header, rows } }
    }

    #[test]
    fn only_what_can_be_leased_is_asked_for() {
        let used = SLOT_USED;
        let rows = vec![
            slot(7, 4, 0b11, used),
            slot(7, 1, 0, used),
            slot(5, 2, 0b11, used),
            slot(3, 1, 0, used | SLOT_DRAINING),
            slot(3, 1, 0, used | SLOT_SUSPENDED),
            slot(3, 1, 0, used | SLOT_SLASHED),
            slot(3, 1, 0, 0),
        ];
        let poor = page(2, 0, 9, vec![slot(1, 1, 0, used)]);
        let second = page(1, 1, 0, vec![slot(9, 1, 0, used)]);
        let mut name = [0; 32];
        name[..3].copy_from_slice(b"cpu");
        let model = GpuModel { id: 1, name, ..GpuModel::ZERO };
        let pages = [page(1, 0, 10, rows), poor, second];
        let all = asks(&pages, &[model]);
        let said: Vec<_> = all.iter().map(|ask| (ask.model.as_str(), ask.ask.0, ask.free, ask.workers)).collect();
        assert_eq!(said, [("cpu", 7, 3, 2), ("cpu", 9, 1, 1)]);

        let fleets = fleets(&pages, Some(1));
        let counts: Vec<_> =
            fleets.iter().map(|one| (one.workers, one.devices, one.leased, one.resting, one.own.0)).collect();
        assert_eq!(counts, [(7, 11, 4, 3, 10), (1, 1, 0, 0, 9)]);
        assert!(super::fleets(&pages, Some(2)).is_empty());
    }
}
