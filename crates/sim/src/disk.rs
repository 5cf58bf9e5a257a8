//! A machine's disk: what was written, what of it would survive a loss of power, and how it fails.
//!
//! A write is in memory until the file is synced. When power goes, each write since then is kept, lost or torn at a
//! sector on its own, in no order. A process that dies loses nothing that it wrote: that is in the machine's memory.
//! Names of files come and go durably at once, which is kinder than real ones; SQLite syncs folders anyway.
//!
//! [`vfs`] lets SQLite work on it.

pub mod vfs;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::random::Random;
use crate::trace::Trace;

/// What is written whole or not at all.
const SECTOR: usize = 512;

/// Why a disk did not do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// There is no room.
    Full,
    /// It broke off; a write may be there in part.
    Broken,
    /// There is no power any more.
    Dark,
}

/// How a disk misbehaves, in a thousand operations each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Habits {
    /// Writes that break off in the middle.
    pub short_writes: u64,
    /// Syncs that fail and say so.
    pub failed_syncs: u64,
    /// Syncs that do nothing and say that they did.
    pub lost_syncs: u64,
    /// Bytes it holds; none: enough.
    pub capacity: Option<usize>,
}

/// What was on a disk at some time.
#[derive(Clone, Debug)]
pub struct Platters(BTreeMap<String, Vec<u8>>);

/// A disk. Clones are the same.
#[derive(Clone, Debug)]
pub struct Disk(Arc<Mutex<Platter>>);

#[derive(Debug)]
struct Platter {
    random: Random,
    trace: Trace,
    habits: Habits,
    files: BTreeMap<String, File>,
    /// Writes until the power goes.
    power_goes_in: Option<u64>,
    dark: bool,
}

#[derive(Debug, Default)]
struct File {
    /// What a reader sees.
    now: Vec<u8>,
    /// What is on the platter.
    durable: Vec<u8>,
    /// What was done since.
    unsynced: Vec<Change>,
}

#[derive(Debug)]
enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Truncate(usize),
}

impl Change {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Self::Write { at, bytes } => {
                if to.len() < *at {
                    to.resize(*at, 0);
                }
                // What is there is written over, the rest appended.
                let (over, rest) = bytes.split_at(bytes.len().min(to.len() - at));
                to[*at..at + over.len()].copy_from_slice(over);
                to.extend_from_slice(rest);
            }
            Self::Truncate(length) => to.truncate(*length),
        }
    }
}

impl Disk {
    /// An empty disk that works.
    #[must_use]
    pub fn new(random: Random, trace: &Trace) -> Self {
        Self(Arc::new(Mutex::new(Platter {
            random,
            trace: trace.clone(),
            habits: Habits::default(),
            files: BTreeMap::new(),
            power_goes_in: None,
            dark: false,
        })))
    }

    fn platter(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on it behaves like this.
    pub fn behave(&self, habits: Habits) {
        self.platter().habits = habits;
    }

    /// The power goes in the middle of the write after so many: nothing works from then on.
    pub fn darken_after(&self, writes: u64) {
        self.platter().power_goes_in = Some(writes);
    }

    /// Whether the power has gone.
    #[must_use]
    pub fn is_dark(&self) -> bool {
        self.platter().dark
    }

    /// The power goes now, if it is not gone, and comes back: what was not synced is there, gone or torn.
    pub fn lose_power(&self) {
        let platter = &mut *self.platter();
        (platter.dark, platter.power_goes_in) = (false, None);
        for (name, file) in &mut platter.files {
            let unsynced = std::mem::take(&mut file.unsynced);
            let mut kept = 0_u64;
            for change in unsynced {
                if let Some(change) = survivor(change, &platter.random) {
                    change.apply(&mut file.durable);
                    kept += 1;
                }
            }
            file.now.clone_from(&file.durable);
            platter.trace.event(name, &kept.to_le_bytes());
        }
    }

    /// What a loss of power now would leave if nothing of what is unsynced survived.
    #[must_use]
    pub fn durable(&self) -> Platters {
        Platters(self.platter().files.iter().map(|(name, file)| (name.clone(), file.durable.clone())).collect())
    }

    /// The power goes, and every sync since `then` turns out to have lied: the disk is as it was.
    pub fn lose_since(&self, then: &Platters) {
        let whole = |bytes: &Vec<u8>| File { now: bytes.clone(), durable: bytes.clone(), unsynced: Vec::new() };
        let platter = &mut *self.platter();
        (platter.dark, platter.power_goes_in) = (false, None);
        platter.files = then.0.iter().map(|(name, bytes)| (name.clone(), whole(bytes))).collect();
    }

    /// Whether there is such a file.
    #[must_use]
    pub fn exists(&self, name: &str) -> bool {
        self.platter().files.contains_key(name)
    }

    /// Makes an empty file where there is none.
    ///
    /// # Errors
    /// No power.
    pub fn create(&self, name: &str) -> Result<(), Failure> {
        let mut platter = self.platter();
        platter.powered()?;
        platter.files.entry(name.to_owned()).or_default();
        Ok(())
    }

    /// Deletes a file, durably; true when there was one.
    ///
    /// # Errors
    /// No power.
    pub fn delete(&self, name: &str) -> Result<bool, Failure> {
        let mut platter = self.platter();
        platter.powered()?;
        Ok(platter.files.remove(name).is_some())
    }

    /// Puts one file in another's place, durably.
    ///
    /// # Errors
    /// No power, or no such file.
    pub fn rename(&self, name: &str, to: &str) -> Result<(), Failure> {
        let mut platter = self.platter();
        platter.powered()?;
        let file = platter.files.remove(name).ok_or(Failure::Broken)?;
        platter.files.insert(to.to_owned(), file);
        Ok(())
    }

    /// A file's length; zero when there is none.
    #[must_use]
    pub fn length(&self, name: &str) -> usize {
        self.platter().files.get(name).map_or(0, |file| file.now.len())
    }

    /// Reads what is there; fewer bytes at the end of the file.
    ///
    /// # Errors
    /// No power.
    pub fn read(&self, name: &str, at: usize, out: &mut [u8]) -> Result<usize, Failure> {
        let platter = self.platter();
        platter.powered()?;
        let Some(there) = platter.files.get(name).and_then(|file| file.now.get(at..)) else { return Ok(0) };
        let count = there.len().min(out.len());
        out[..count].copy_from_slice(&there[..count]);
        Ok(count)
    }

    /// A whole file; none when there is none.
    ///
    /// # Errors
    /// No power.
    pub fn read_whole(&self, name: &str) -> Result<Option<Vec<u8>>, Failure> {
        let platter = self.platter();
        platter.powered()?;
        Ok(platter.files.get(name).map(|file| file.now.clone()))
    }

    /// Writes; unsynced.
    ///
    /// # Errors
    /// [`Failure`]; part of it may be there.
    pub fn write(&self, name: &str, at: usize, bytes: &[u8]) -> Result<(), Failure> {
        let platter = &mut *self.platter();
        platter.powered()?;
        platter.note(name, at, bytes.len());
        let full =
            platter.habits.capacity.is_some_and(|capacity| platter.used() + platter.grows(name, at, bytes) > capacity);
        if full {
            return Err(Failure::Full);
        }
        let fails = if platter.goes_dark() {
            platter.dark = true;
            Some(Failure::Dark)
        } else {
            platter.random.happens(platter.habits.short_writes).then_some(Failure::Broken)
        };
        let length = match fails {
            Some(_) => usize::try_from(platter.random.below(0..bytes.len() as u64 + 1)).unwrap_or(0),
            None => bytes.len(),
        };
        let file = platter.files.entry(name.to_owned()).or_default();
        file.change(Change::Write { at, bytes: bytes[..length].to_vec() });
        fails.map_or(Ok(()), Err)
    }

    /// Cuts a file; unsynced.
    ///
    /// # Errors
    /// No power.
    pub fn truncate(&self, name: &str, length: usize) -> Result<(), Failure> {
        let mut platter = self.platter();
        platter.powered()?;
        platter.note(name, length, 0);
        if let Some(file) = platter.files.get_mut(name).filter(|file| file.now.len() > length) {
            file.change(Change::Truncate(length));
        }
        Ok(())
    }

    /// Makes what was written to a file durable, if it does.
    ///
    /// # Errors
    /// [`Failure`]; what is durable then is for [`Disk::lose_power`] to say.
    pub fn sync(&self, name: &str) -> Result<(), Failure> {
        let platter = &mut *self.platter();
        platter.powered()?;
        if platter.random.happens(platter.habits.failed_syncs) {
            return Err(Failure::Broken);
        }
        if platter.random.happens(platter.habits.lost_syncs) {
            return Ok(());
        }
        if let Some(file) = platter.files.get_mut(name) {
            for change in file.unsynced.drain(..) {
                change.apply(&mut file.durable);
            }
        }
        Ok(())
    }
}

impl Platter {
    fn powered(&self) -> Result<(), Failure> {
        if self.dark { Err(Failure::Dark) } else { Ok(()) }
    }

    fn goes_dark(&mut self) -> bool {
        match &mut self.power_goes_in {
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        }
    }

    fn used(&self) -> usize {
        self.files.values().map(|file| file.now.len()).sum()
    }

    fn grows(&self, name: &str, at: usize, bytes: &[u8]) -> usize {
        (at + bytes.len()).saturating_sub(self.files.get(name).map_or(0, |file| file.now.len()))
    }

    /// Contents are left out: SQLite salts its log with randomness that is the process's own.
    fn note(&self, name: &str, at: usize, length: usize) {
        let numbers = [at as u64, length as u64].map(u64::to_le_bytes);
        self.trace.event(name, numbers.as_flattened());
    }
}

impl File {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.now);
        self.unsynced.push(change);
    }
}

/// What a loss of power leaves of a change.
fn survivor(change: Change, random: &Random) -> Option<Change> {
    match random.below(0..4) {
        0 => None,
        1 => match change {
            Change::Write { at, mut bytes } => {
                let sectors = bytes.len().div_ceil(SECTOR) as u64;
                let whole = usize::try_from(random.below(0..sectors + 1)).unwrap_or(0) * SECTOR;
                bytes.truncate(whole);
                (!bytes.is_empty()).then_some(Change::Write { at, bytes })
            }
            Change::Truncate(_) => None,
        },
        _ => Some(change),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::TrueTime;

    fn disk(seed: u64) -> Disk {
        Disk::new(Random::new(seed, "disk"), &Trace::new(&TrueTime::begin(), crate::trace::Telling::default()))
    }

    fn whole(disk: &Disk) -> Vec<u8> {
        disk.read_whole("f").unwrap().unwrap_or_default()
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_synced_survives_and_the_rest_may() {
        let (mut kept, mut lost) = (0, 0);
        for seed in 0..100 {
            let disk = disk(seed);
            disk.write("f", 0, b"safe").unwrap();
            disk.sync("f").unwrap();
            disk.write("f", 4, b" and not").unwrap();
            assert_eq!(whole(&disk), b"safe and not");
            disk.lose_power();
            match whole(&disk).as_slice() {
                b"safe" => lost += 1,
                b"safe and not" => kept += 1,
                other => panic!("{other:?}"),
            }
        }
        assert!(kept > 20 && lost > 20, "{kept} {lost}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_torn_write_is_torn_at_a_sector() {
        let lengths: std::collections::BTreeSet<usize> = (0..200)
            .map(|seed| {
                let disk = disk(seed);
                disk.write("f", 0, &[1; 4 * SECTOR]).unwrap();
                disk.lose_power();
                whole(&disk).len()
            })
            .collect();
        assert_eq!(lengths.into_iter().collect::<Vec<_>>(), [0, 512, 1024, 1536, 2048]);
    }

    #[tokio::test(start_paused = true)]
    async fn it_fails_in_every_way_it_was_told_to() {
        let disk = disk(1);
        disk.behave(Habits { capacity: Some(10), ..Habits::default() });
        disk.write("f", 0, &[1; 10]).unwrap();
        disk.write("f", 0, &[2; 10]).unwrap();
        assert_eq!(disk.write("f", 5, &[3; 6]), Err(Failure::Full));
        disk.behave(Habits { short_writes: 1000, failed_syncs: 1000, ..Habits::default() });
        assert_eq!((disk.write("f", 0, &[4; 10]), disk.sync("f")), (Err(Failure::Broken), Err(Failure::Broken)));
        disk.behave(Habits { lost_syncs: 1000, ..Habits::default() });
        disk.sync("f").unwrap();
        let survived = (0..50).filter(|_| {
            disk.write("f", 0, &[9; 10]).unwrap();
            disk.sync("f").unwrap();
            disk.lose_power();
            let survived = whole(&disk).first() == Some(&9);
            disk.behave(Habits::default());
            disk.write("f", 0, &[0; 10]).unwrap();
            disk.sync("f").unwrap();
            disk.behave(Habits { lost_syncs: 1000, ..Habits::default() });
            survived
        });
        assert!((1..50).contains(&survived.count()));
    }

    #[tokio::test(start_paused = true)]
    async fn when_syncs_have_lied_the_disk_is_as_it_was() {
        let disk = disk(2);
        disk.write("f", 0, b"true").unwrap();
        disk.sync("f").unwrap();
        let then = disk.durable();
        disk.write("f", 0, b"said").unwrap();
        disk.write("g", 0, b"too").unwrap();
        disk.sync("f").unwrap();
        disk.sync("g").unwrap();
        disk.lose_since(&then);
        assert_eq!((whole(&disk).as_slice(), disk.exists("g")), (b"true".as_slice(), false));
        disk.lose_power();
        assert_eq!(whole(&disk), b"true");
    }

    #[tokio::test(start_paused = true)]
    async fn in_the_dark_nothing_works() {
        let disk = disk(3);
        disk.darken_after(1);
        disk.write("f", 0, &[1; 10]).unwrap();
        disk.sync("f").unwrap();
        assert_eq!(disk.write("f", 0, &[2; 10]), Err(Failure::Dark));
        assert!(disk.is_dark());
        assert_eq!(
            (disk.sync("f"), disk.create("g"), disk.delete("f")),
            (Err(Failure::Dark), Err(Failure::Dark), Err(Failure::Dark))
        );
        disk.lose_power();
        let found = whole(&disk);
        assert!(found.len() == 10 && found.iter().all(|byte| matches!(byte, 1 | 2)));
        disk.write("f", 0, &[3; 10]).unwrap();
    }
}
