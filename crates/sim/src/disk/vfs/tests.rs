use rusqlite::{Connection, OpenFlags};

use super::super::Habits;
use super::*;
use crate::clock::{Error, TrueTime};
use crate::random::Random;
use crate::trace::Trace;

const FLAGS: OpenFlags = OpenFlags::SQLITE_OPEN_READ_WRITE.union(OpenFlags::SQLITE_OPEN_CREATE);

fn rig(seed: u64) -> (Disk, Clock) {
    let time = TrueTime::begin();
    let disk = Disk::new(Random::new(seed, "disk"), &Trace::new(&time, crate::trace::Telling::default()));
    (disk, Clock::new(&time, Error::default()))
}

fn open(mount: &Mount) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags_and_vfs("store.db", FLAGS, mount.name())?;
    connection.execute_batch(
        "pragma locking_mode = exclusive; pragma journal_mode = wal; pragma synchronous = full;
         create table if not exists rows (key integer primary key, value integer not null) strict;",
    )?;
    Ok(connection)
}

fn rows(connection: &Connection) -> BTreeMap<i64, i64> {
    let mut statement = connection.prepare("select key, value from rows").unwrap();
    statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect()
}

/// Writes in transactions of two rows until one fails; what was acknowledged, and what may be there besides.
fn work(connection: &Connection, random: &Random, known: &mut BTreeMap<i64, i64>) -> Option<BTreeMap<i64, i64>> {
    for _ in 0..60 {
        let mut wanted = known.clone();
        let key = i64::try_from(random.below(0..20)).unwrap();
        let value = i64::try_from(random.below(0..1000)).unwrap();
        wanted.extend([(key, value), (key + 100, value)]);
        let put = "insert into rows values (?1, ?3), (?2, ?3) on conflict (key) do update set value = excluded.value";
        match connection.execute(put, (key, key + 100, value)) {
            Ok(_) => *known = wanted,
            Err(_) => return Some(wanted),
        }
    }
    None
}

#[tokio::test(start_paused = true)]
async fn whatever_kills_the_process_or_the_power_every_acknowledged_row_is_there() {
    let mut losses = 0;
    for seed in 0..150 {
        let (disk, clock) = rig(seed);
        let random = Random::new(seed, "test");
        let mut known = BTreeMap::new();
        let mut perhaps = None;
        for life in 0..4 {
            let mount = Mount::new(&disk, &clock);
            let connection = open(&mount).unwrap();
            let found = rows(&connection);
            let fits = found == known || perhaps.as_ref() == Some(&found);
            assert!(fits, "seed {seed} life {life}: {found:?}, not {known:?} or {perhaps:?}");
            known = found;
            if life % 2 == 0 {
                disk.darken_after(random.below(0..200));
            }
            perhaps = work(&connection, &random, &mut known);
            mount.kill();
            drop(connection);
            if life % 2 == 0 {
                losses += u32::from(disk.is_dark());
                disk.lose_power();
            }
            let checked = Mount::new(&disk, &clock);
            let answer: String =
                open(&checked).unwrap().query_row("pragma integrity_check", [], |row| row.get(0)).unwrap();
            assert_eq!(answer, "ok");
        }
    }
    assert!(losses > 50, "{losses}");
}

#[tokio::test(start_paused = true)]
async fn a_sync_that_lies_loses_rows() {
    let lost = (0..50).filter(|seed| {
        let (disk, clock) = rig(*seed);
        let mount = Mount::new(&disk, &clock);
        let connection = open(&mount).unwrap();
        disk.behave(Habits { lost_syncs: 1000, ..Habits::default() });
        let mut known = BTreeMap::new();
        work(&connection, &Random::new(*seed, "test"), &mut known);
        mount.kill();
        drop(connection);
        disk.behave(Habits::default());
        disk.lose_power();
        let mount = Mount::new(&disk, &clock);
        open(&mount).map(|connection| rows(&connection)).ok() != Some(known)
    });
    assert!(lost.count() > 40, "a test that cannot fail would not show a lost row either");
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_refuses_and_goes_on_when_there_is_room() {
    let (disk, clock) = rig(1);
    let mount = Mount::new(&disk, &clock);
    let connection = open(&mount).unwrap();
    disk.behave(Habits { capacity: Some(40 << 10), ..Habits::default() });
    let put = |n: i64| connection.execute("insert into rows values (?1, zeroblob(0) is null)", [n]);
    let refused = (0..1000).find_map(|n| put(n).err()).unwrap();
    assert_eq!(refused.sqlite_error_code(), Some(rusqlite::ErrorCode::DiskFull), "{refused}");
    disk.behave(Habits::default());
    put(5000).unwrap();
    assert!(rows(&connection).contains_key(&5000));
}

#[tokio::test(start_paused = true)]
async fn one_process_opens_a_database_once_and_its_clock_is_the_machines() {
    let (disk, clock) = rig(1);
    let mount = Mount::new(&disk, &clock);
    let connection = open(&mount).unwrap();
    assert!(open(&mount).is_err());
    let now: i64 = connection.query_row("select unixepoch()", [], |row| row.get(0)).unwrap();
    assert_eq!(now.unsigned_abs(), clock.now().0 / 1000);
    drop(connection);
    open(&mount).unwrap();
}
