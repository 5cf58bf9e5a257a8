//! Reading the market's accounts over RPC, as typed values with their addresses.
//!
//! An account counts only when the market program owns it and its length, kind and version are right; a node cannot make
//! another account of it. What an account means is told by `atoll-interface`.

use std::mem::offset_of;

use atoll_interface::Error;
use atoll_interface::layout::{
    AskKey, Attestor, Budget, Catalogue, CoStake, Config, DeviceKey, Epoch, FleetPage, FraudCase, Lease, Order,
    PriceFeed, Record, Rules, Table as Rows,
};

use super::{PROGRAM_ID, address};
use crate::address::{Address, Hash};
use crate::rpc::{Account, Filter, Rpc, RpcError};
use crate::spl::{self, SYSTEM_PROGRAM};

/// A value and the address of its account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct At<T> {
    /// Where it is.
    pub address: Address,
    /// What it is.
    pub value: T,
}

/// A header and its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table<H, R> {
    /// The header.
    pub header: H,
    /// The rows in use, in order.
    pub rows: Vec<R>,
}

/// What all that happens on a network is measured by, of one state of the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Parameters and attestor seats.
    pub config: Table<Config, <Config as Rows>::Row>,
    /// Device models.
    pub catalogue: Table<Catalogue, <Catalogue as Rows>::Row>,
    /// The price of ATL.
    pub feed: PriceFeed,
    /// The chain's clock, Unix seconds.
    pub now: i64,
}

/// Why an account of the market cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The chain could not be asked.
    #[error(transparent)]
    Rpc(#[from] RpcError),
    /// The account is not what its address says: a wrong node, or a program of another version.
    #[error(
        "account {address} is not {expected} of the market program: check that the chain's address is that of this network"
    )]
    Foreign { address: Address, expected: &'static str },
    /// The network's own accounts are not there.
    #[error(
        "the market program has no {expected} on this chain: start the network first, or check the chain's address"
    )]
    NoNetwork { expected: &'static str },
}

/// The market's accounts on one chain.
#[derive(Debug, Clone)]
pub struct Market {
    rpc: Rpc,
}

/// Reads one account.
///
/// # Errors
/// [`ReadError::Foreign`] when owner, length, kind or version is another.
pub fn read<T: Record>(account: &Account) -> Result<At<T>, ReadError> {
    let refused = |_: Error| ReadError::Foreign { address: account.address, expected: name::<T>() };
    let value = owned(account).and_then(|()| T::read(&account.data)).map_err(refused)?;
    Ok(At { address: account.address, value })
}

/// Reads one account with its rows.
///
/// # Errors
/// As [`read`], and when the account is too short for its rows.
pub fn read_table<T: Rows>(account: &Account) -> Result<At<Table<T, T::Row>>, ReadError> {
    let refused = |_: Error| ReadError::Foreign { address: account.address, expected: name::<T>() };
    let header = owned(account).and_then(|()| T::read(&account.data)).map_err(refused)?;
    let row = |index| T::read_row(&account.data, index)?.ok_or(Error::AccountKindWrong);
    let rows = (0..header.count()).map(row).collect::<Result<_, _>>().map_err(refused)?;
    Ok(At { address: account.address, value: Table { header, rows } })
}

/// The account, unless somebody only sent lamports to its address: anyone can, before it is made and after it is closed,
/// and there is still nothing of the market there.
#[must_use]
pub fn made(account: Option<Account>) -> Option<Account> {
    account.filter(|account| account.owner != SYSTEM_PROGRAM || !account.data.is_empty())
}

fn owned(account: &Account) -> Result<(), Error> {
    if account.owner == PROGRAM_ID { Ok(()) } else { Err(Error::AccountOwnerWrong) }
}

/// The type's name without its path, such as `Order`.
fn name<T>() -> &'static str {
    std::any::type_name::<T>().rsplit("::").next().unwrap_or("account")
}

/// Kind, version and one more field.
fn filters<T: Record>(field: Option<(usize, &Address)>) -> Vec<Filter> {
    let mut filters = vec![Filter::Bytes { offset: 0, bytes: vec![T::KIND as u8, T::VERSION] }];
    if let Some((offset, value)) = field {
        filters.push(Filter::Bytes { offset, bytes: value.0.to_vec() });
    }
    filters
}

impl Market {
    /// The market on the chain that `rpc` reaches.
    #[must_use]
    pub const fn new(rpc: Rpc) -> Self {
        Self { rpc }
    }

    /// The client it reads with.
    #[must_use]
    pub const fn rpc(&self) -> &Rpc {
        &self.rpc
    }

    async fn one<T: Record>(&self, address: &Address) -> Result<Option<At<T>>, ReadError> {
        made(self.rpc.account(address).await?).as_ref().map(read).transpose()
    }

    async fn table<T: Rows>(&self, address: &Address) -> Result<Option<At<Table<T, T::Row>>>, ReadError> {
        made(self.rpc.account(address).await?).as_ref().map(read_table).transpose()
    }

    /// Some accounts and the chain's clock, Unix seconds, of one state: one request instead of two.
    async fn with_clock<const N: usize>(
        &self,
        addresses: [Address; N],
    ) -> Result<([Option<Account>; N], i64), ReadError> {
        let mut asked = addresses.to_vec();
        asked.push(spl::CLOCK_SYSVAR);
        let mut found = self.rpc.accounts(&asked).await?;
        let clock = found.pop().flatten().and_then(|account| spl::Clock::read(&account.data));
        let malformed = |why: &str| RpcError::Malformed { method: "getMultipleAccounts", why: why.to_owned() };
        let now = clock.ok_or_else(|| malformed("the node has no clock"))?.unix_timestamp;
        let accounts = found.try_into().map_err(|_| malformed("another number of accounts than asked for"))?;
        Ok((accounts, now))
    }

    async fn all<T: Record>(&self, field: Option<(usize, &Address)>) -> Result<Vec<At<T>>, ReadError> {
        let accounts = self.rpc.program_accounts(&PROGRAM_ID, &filters::<T>(field)).await?;
        accounts.iter().map(read).collect()
    }

    async fn tables<T: Rows>(&self, field: Option<(usize, &Address)>) -> Result<Vec<At<Table<T, T::Row>>>, ReadError> {
        let accounts = self.rpc.program_accounts(&PROGRAM_ID, &filters::<T>(field)).await?;
        accounts.iter().map(read_table).collect()
    }

    /// Parameters, catalogue, feed and clock together.
    ///
    /// # Errors
    /// [`ReadError`], as every method here; [`ReadError::NoNetwork`] before `init`.
    pub async fn network(&self) -> Result<Network, ReadError> {
        let addresses = [address::config(), address::catalogue(), address::feed()];
        let (accounts, now) = self.with_clock(addresses).await?;
        let [config, catalogue, feed] = accounts.map(made);
        let there = |account: Option<Account>, expected| account.ok_or(ReadError::NoNetwork { expected });
        Ok(Network {
            config: read_table(&there(config, "parameters")?)?.value,
            catalogue: read_table(&there(catalogue, "catalogue")?)?.value,
            feed: read(&there(feed, "price feed")?)?.value,
            now,
        })
    }

    /// The network's parameters and attestor seats.
    ///
    /// # Errors
    /// [`ReadError`], as every method here; [`ReadError::NoNetwork`] before `init`.
    pub async fn config(&self) -> Result<At<Table<Config, <Config as Rows>::Row>>, ReadError> {
        self.table(&address::config()).await?.ok_or(ReadError::NoNetwork { expected: "parameters" })
    }

    /// The device models.
    ///
    /// # Errors
    /// [`ReadError`], as every method here; [`ReadError::NoNetwork`] before `init`.
    pub async fn catalogue(&self) -> Result<At<Table<Catalogue, <Catalogue as Rows>::Row>>, ReadError> {
        self.table(&address::catalogue()).await?.ok_or(ReadError::NoNetwork { expected: "catalogue" })
    }

    /// The price of ATL.
    ///
    /// # Errors
    /// [`ReadError`], as every method here; [`ReadError::NoNetwork`] before `init`.
    pub async fn feed(&self) -> Result<At<PriceFeed>, ReadError> {
        self.one(&address::feed()).await?.ok_or(ReadError::NoNetwork { expected: "price feed" })
    }

    /// A page of workers, by its address.
    ///
    /// # Errors
    /// [`ReadError`], as every method here.
    pub async fn page(
        &self,
        page: &Address,
    ) -> Result<Option<At<Table<FleetPage, <FleetPage as Rows>::Row>>>, ReadError> {
        self.table(page).await
    }

    /// All pages of the network, by address.
    ///
    /// # Errors
    /// [`ReadError`], as every method here.
    pub async fn pages(&self) -> Result<Vec<At<Table<FleetPage, <FleetPage as Rows>::Row>>>, ReadError> {
        self.tables(None).await
    }

    /// The pages of one supplier, by address.
    ///
    /// # Errors
    /// [`ReadError`], as every method here.
    pub async fn pages_of(
        &self,
        supplier: &Address,
    ) -> Result<Vec<At<Table<FleetPage, <FleetPage as Rows>::Row>>>, ReadError> {
        self.tables(Some((offset_of!(FleetPage, supplier), supplier))).await
    }

    /// Where a device key is registered.
    ///
    /// # Errors
    /// [`ReadError`], as every method here.
    pub async fn device(&self, key: &Address) -> Result<Option<At<DeviceKey>>, ReadError> {
        self.one(&address::device(key)).await
    }

    /// An order.
    ///
    /// # Errors
    /// [`ReadError`], as every method here.
    pub async fn order(&self, order: &Address) -> Result<Option<At<Order>>, ReadError> {
        self.one(order).await
    }

    /// An order as the program sees it at the time that is given with it, Unix seconds.
    ///
    /// # Errors
    /// [`ReadError`], as every method here.
    pub async fn order_now(&self, order: &Address) -> Result<Option<(Order, i64)>, ReadError> {
        let ([account], now) = self.with_clock([*order]).await?;
        let Some(account) = made(account) else { return Ok(None) };
        let mut order = read::<Order>(&account)?.value;
        order.ripen(now);
        Ok(Some((order, now)))
    }

    /// All orders, by address.
    ///
    /// # Errors
    /// [`ReadError`], as every method here.
    pub async fn orders(&self) -> Result<Vec<At<Order>>, ReadError> {
        self.all(None).await
    }

    /// The orders of one renter, by address.
    ///
    /// # Errors
    /// [`ReadError`], as every method here.
    pub async fn orders_of(&self, renter: &Address) -> Result<Vec<At<Order>>, ReadError> {
        self.all(Some((offset_of!(Order, renter), renter))).await
    }

    /// A lease.
    ///
    /// # Errors
    /// [`ReadError`], as every method here.
    pub async fn lease(&self, lease: &Address) -> Result<Option<At<Lease>>, ReadError> {
        self.one(lease).await
    }

    /// The open leases of one order, by address.
    ///
    /// # Errors
    /// [`ReadError`], as every method here.
    pub async fn leases_of(&self, order: &Address) -> Result<Vec<At<Lease>>, ReadError> {
        self.all(Some((offset_of!(Lease, order), order))).await
    }

    /// The open leases on one page, by address: what a worker has to serve.
    ///
    /// # Errors
    /// [`ReadError`], as every method here.
    pub async fn leases_on(&self, page: &Address) -> Result<Vec<At<Lease>>, ReadError> {
        self.all(Some((offset_of!(Lease, page), page))).await
    }

    /// A session key's account.
    ///
    /// # Errors
    /// [`ReadError`], as every method here.
    pub async fn budget(&self, renter: &Address, key: &Address) -> Result<Option<At<Budget>>, ReadError> {
        self.one(&address::budget(renter, key)).await
    }

    /// The session keys of one renter, by address.
    ///
    /// # Errors
    /// [`ReadError`], as every method here.
    pub async fn budgets_of(&self, renter: &Address) -> Result<Vec<At<Budget>>, ReadError> {
        self.all(Some((offset_of!(Budget, renter), renter))).await
    }

    /// The rules of stake, faults, rewards and votes.
    ///
    /// # Errors
    /// [`ReadError`], as every method here; [`ReadError::NoNetwork`] before `set_rules`.
    pub async fn rules(&self) -> Result<At<Rules>, ReadError> {
        self.one(&address::rules()).await?.ok_or(ReadError::NoNetwork { expected: "rules" })
    }

    /// A supplier's offer of co-stake; `first_page` is the supplier's page 0.
    ///
    /// # Errors
    /// [`ReadError`], as every method here.
    pub async fn costake(&self, first_page: &Address, n: u16) -> Result<Option<At<CoStake>>, ReadError> {
        self.one(&address::costake(first_page, n)).await
    }

    /// All offers of co-stake, by address.
    ///
    /// # Errors
    /// [`ReadError`], as every method here.
    pub async fn costakes(&self) -> Result<Vec<At<CoStake>>, ReadError> {
        self.all(None).await
    }

    /// The offers of one supplier, by address; `first_page` is its page 0.
    ///
    /// # Errors
    /// [`ReadError`], as every method here.
    pub async fn costakes_of(&self, first_page: &Address) -> Result<Vec<At<CoStake>>, ReadError> {
        self.all(Some((offset_of!(CoStake, page), first_page))).await
    }

    /// The keys that one supplier gave its asks to, by address.
    ///
    /// # Errors
    /// [`ReadError`], as every method here.
    pub async fn ask_keys_of(&self, supplier: &Address) -> Result<Vec<At<AskKey>>, ReadError> {
        self.all(Some((offset_of!(AskKey, supplier), supplier))).await
    }

    /// A case of capacity fraud.
    ///
    /// # Errors
    /// [`ReadError`], as every method here.
    pub async fn case(&self, case: &Address) -> Result<Option<At<FraudCase>>, ReadError> {
        self.one(case).await
    }

    /// An attestor's account.
    ///
    /// # Errors
    /// [`ReadError`], as every method here.
    pub async fn attestor(&self, key: &Address) -> Result<Option<At<Attestor>>, ReadError> {
        self.one(&address::attestor(key)).await
    }

    /// An attestor's account, if it has one, and the chain's clock, Unix seconds, of one state.
    ///
    /// # Errors
    /// [`ReadError`], as every method here.
    pub async fn attestor_now(&self, key: &Address) -> Result<(Option<Attestor>, i64), ReadError> {
        let ([account], now) = self.with_clock([address::attestor(key)]).await?;
        let attestor = made(account).as_ref().map(read::<Attestor>).transpose()?;
        Ok((attestor.map(|found| found.value), now))
    }

    /// One root proposed for one epoch.
    ///
    /// # Errors
    /// [`ReadError`], as every method here.
    pub async fn epoch(&self, index: u64, root: &Hash) -> Result<Option<At<Epoch>>, ReadError> {
        self.one(&address::epoch(index, root)).await
    }

    /// All roots proposed for any epoch, by address.
    ///
    /// # Errors
    /// [`ReadError`], as every method here.
    pub async fn epochs(&self) -> Result<Vec<At<Epoch>>, ReadError> {
        self.all(None).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use atoll_interface::layout::{Slot, bytes_of};

    fn account(owner: Address, data: Vec<u8>) -> Account {
        Account { address: Address([1; 32]), owner, lamports: 1, data, executable: false }
    }

    #[test]
    fn accounts_of_another_owner_length_kind_or_version_are_refused() {
        let mut order = Order::new();
        order.escrow = 5;
        let bytes = bytes_of(&order).to_vec();
        assert_eq!(read::<Order>(&account(PROGRAM_ID, bytes.clone())).unwrap().value.escrow, 5);
        assert!(read::<Order>(&account(Address([9; 32]), bytes.clone())).is_err());
        assert!(read::<Lease>(&account(PROGRAM_ID, bytes.clone())).is_err());
        assert!(read::<Order>(&account(PROGRAM_ID, bytes[1..].to_vec())).is_err());
        let mut newer = bytes;
        newer[1] = 2;
        let refused = read::<Order>(&account(PROGRAM_ID, newer)).unwrap_err().to_string();
        assert!(refused.contains("not Order of the market program"), "{refused}");
    }

    #[test]
    fn lamports_alone_make_no_account() {
        assert_eq!(made(Some(account(SYSTEM_PROGRAM, Vec::new()))), None);
        for foreign in [account(SYSTEM_PROGRAM, vec![0]), account(Address([9; 32]), Vec::new())] {
            assert_eq!(made(Some(foreign.clone())), Some(foreign));
        }
    }

    #[test]
    fn rows_must_all_be_there() {
        let mut page = FleetPage::new();
        page.slot_count = 2;
        let mut data = bytes_of(&page).to_vec();
        data.extend_from_slice(bytes_of(&Slot::ZERO));
        assert!(read_table::<FleetPage>(&account(PROGRAM_ID, data.clone())).is_err());
        data.extend_from_slice(bytes_of(&Slot::ZERO));
        assert_eq!(read_table::<FleetPage>(&account(PROGRAM_ID, data)).unwrap().value.rows.len(), 2);
    }
}
