//! A disk as SQLite's file system: what [`Disk`] does, in SQLite's C interface (<https://sqlite.org/vfs.html>).
//!
//! A [`Mount`] is one process's view of a disk: when the process dies, whatever it still does to its files fails, so that
//! closing a database does not tidy up what a killed process would have left. No shared memory: SQLite then keeps its
//! write-ahead log's index to itself, under an exclusive lock (`locking_mode = exclusive`).
//!
//! A crate could do this (sqlite-plugin 0.9, sqlite-vfs 0.2); neither lets a test decide what a sync does without as much
//! code as is here.

#![expect(unsafe_code, reason = "SQLite calls a file system through pointers; each function says why its own are good")]

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::ffi;

use super::{Disk, Failure};
use crate::clock::Clock;

/// Names of mounts in this process; SQLite's list of file systems is global.
static NEXT: AtomicU64 = AtomicU64::new(0);
/// Longest path.
const PATH_BYTES_MAX: c_int = 512;
/// 1970-01-01 in milliseconds of SQLite's calendar, which begins in 4714 BC.
const JULIAN_1970_MS: i64 = 210_866_760_000_000;

/// A process's view of a disk, registered with SQLite under a name of its own.
#[derive(Debug)]
pub struct Mount {
    shared: Arc<Shared>,
    vfs: *mut ffi::sqlite3_vfs,
}

// SAFETY: the pointer is only handed to SQLite's register functions, which lock; what it points to is never freed.
unsafe impl Send for Mount {}
// SAFETY: as above; shared access never follows the pointer.
unsafe impl Sync for Mount {}

#[derive(Debug)]
struct Shared {
    name: CString,
    disk: Disk,
    clock: Clock,
    dead: AtomicBool,
    /// Who holds which lock on which file, by handle.
    locks: Mutex<BTreeMap<(String, u64), c_int>>,
    handles: AtomicU64,
}

impl Mount {
    /// Mounts a disk.
    ///
    /// # Panics
    /// When SQLite takes no more file systems, which is out of memory.
    #[must_use]
    pub fn new(disk: &Disk, clock: &Clock) -> Self {
        let name = CString::new(format!("atoll-sim-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        let shared = Arc::new(Shared {
            name: name.expect("there is no zero byte in it"),
            disk: disk.clone(),
            clock: clock.clone(),
            dead: AtomicBool::new(false),
            locks: Mutex::default(),
            handles: AtomicU64::new(0),
        });
        // Never freed, as a connection that outlives the mount still points here: 200 bytes a mount.
        let vfs = Box::leak(Box::new(ffi::sqlite3_vfs {
            iVersion: 2,
            szOsFile: c_int::try_from(size_of::<OpenFile>()).expect("it is two pointers"),
            mxPathname: PATH_BYTES_MAX,
            pNext: std::ptr::null_mut(),
            zName: shared.name.as_ptr(),
            pAppData: Arc::into_raw(Arc::clone(&shared)).cast_mut().cast(),
            xOpen: Some(open),
            xDelete: Some(delete),
            xAccess: Some(access),
            xFullPathname: Some(full_path),
            xDlOpen: None,
            xDlError: None,
            xDlSym: None,
            xDlClose: None,
            xRandomness: Some(randomness),
            xSleep: Some(sleep),
            xCurrentTime: None,
            xGetLastError: Some(last_error),
            xCurrentTimeInt64: Some(time),
            xSetSystemCall: None,
            xGetSystemCall: None,
            xNextSystemCall: None,
        }));
        // SAFETY: a file system of version 2 with everything that version calls, valid for ever.
        let registered = unsafe { ffi::sqlite3_vfs_register(vfs, 0) };
        assert_eq!(registered, ffi::SQLITE_OK, "SQLite takes a file system");
        Self { shared, vfs }
    }

    /// The name that a connection opens with.
    #[must_use]
    pub fn name(&self) -> &str {
        self.shared.name.to_str().expect("it was made from text")
    }

    /// The process dies: everything that its connections still do fails. Its locks are gone.
    pub fn kill(&self) {
        self.shared.dead.store(true, Ordering::Relaxed);
        self.shared.locks.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        self.kill();
        // SAFETY: it was registered in `new`, and SQLite only unlinks it. Open connections go on to point at it.
        unsafe { ffi::sqlite3_vfs_unregister(self.vfs) };
    }
}

impl Shared {
    fn alive(&self) -> Result<(), Failure> {
        if self.dead.load(Ordering::Relaxed) { Err(Failure::Dark) } else { Ok(()) }
    }

    /// SQLite's five levels; all locks are of this one process, which may open a file more than once.
    fn lock(&self, file: &str, handle: u64, level: c_int) -> c_int {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        let others =
            locks.iter().filter(|((name, holder), _)| name == file && *holder != handle).map(|(_, level)| *level);
        let highest = others.max().unwrap_or(ffi::SQLITE_LOCK_NONE);
        let refused = match level {
            ffi::SQLITE_LOCK_SHARED => highest >= ffi::SQLITE_LOCK_PENDING,
            ffi::SQLITE_LOCK_RESERVED | ffi::SQLITE_LOCK_PENDING => highest >= ffi::SQLITE_LOCK_RESERVED,
            ffi::SQLITE_LOCK_EXCLUSIVE => highest >= ffi::SQLITE_LOCK_SHARED,
            _ => false,
        };
        if refused {
            return ffi::SQLITE_BUSY;
        }
        let held = locks.entry((file.to_owned(), handle)).or_insert(ffi::SQLITE_LOCK_NONE);
        *held = level.max(*held);
        ffi::SQLITE_OK
    }
}

/// What SQLite keeps for an open file: its methods, then ours.
#[repr(C)]
struct OpenFile {
    base: ffi::sqlite3_file,
    handle: *mut Handle,
}

struct Handle {
    mount: Arc<Shared>,
    name: String,
    id: u64,
    delete_on_close: bool,
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 1,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved),
    xFileControl: Some(control),
    xSectorSize: Some(sector),
    xDeviceCharacteristics: Some(characteristics),
    xShmMap: None,
    xShmLock: None,
    xShmBarrier: None,
    xShmUnmap: None,
    xFetch: None,
    xUnfetch: None,
};

/// The mount of a file system.
///
/// # Safety
/// `vfs` is one that [`Mount::new`] registered.
unsafe fn mount<'a>(vfs: *mut ffi::sqlite3_vfs) -> &'a Shared {
    // SAFETY: `pAppData` is the reference that `new` leaked with the file system.
    unsafe { &*(*vfs).pAppData.cast::<Shared>() }
}

/// The handle of an open file.
///
/// # Safety
/// `file` was opened by [`open`] and is not closed.
unsafe fn handle<'a>(file: *mut ffi::sqlite3_file) -> &'a Handle {
    // SAFETY: `open` wrote an `OpenFile` there, with a box's pointer that only `close` takes back.
    unsafe { &*(*file.cast::<OpenFile>()).handle }
}

/// A name that SQLite gives.
///
/// # Safety
/// `name` is text that ends with a zero byte.
unsafe fn text(name: *const c_char) -> String {
    // SAFETY: the caller's.
    unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
}

fn code(result: Result<(), Failure>, otherwise: c_int) -> c_int {
    match result {
        Ok(()) => ffi::SQLITE_OK,
        Err(Failure::Full) => ffi::SQLITE_FULL,
        Err(Failure::Broken | Failure::Dark) => otherwise,
    }
}

fn place(at: ffi::sqlite3_int64) -> usize {
    usize::try_from(at).expect("SQLite gives no place before a file's beginning")
}

unsafe extern "C" fn open(
    vfs: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    flags_out: *mut c_int,
) -> c_int {
    // SAFETY: SQLite gives its own file system, room for an `OpenFile`, a name or none, and a place for flags or none.
    unsafe {
        (*file).pMethods = std::ptr::null();
        // The registered reference stays leaked: this is one more.
        Arc::increment_strong_count((*vfs).pAppData.cast::<Shared>());
        let shared = Arc::from_raw((*vfs).pAppData.cast::<Shared>());
        let id = shared.handles.fetch_add(1, Ordering::Relaxed);
        let name = if name.is_null() { format!("temporary-{id}") } else { text(name) };
        let creates = flags & (ffi::SQLITE_OPEN_CREATE | ffi::SQLITE_OPEN_DELETEONCLOSE) != 0;
        if shared.alive().is_err() || (!creates && !shared.disk.exists(&name)) || shared.disk.create(&name).is_err() {
            return ffi::SQLITE_CANTOPEN;
        }
        let delete_on_close = flags & ffi::SQLITE_OPEN_DELETEONCLOSE != 0;
        let handle = Box::into_raw(Box::new(Handle { mount: shared, name, id, delete_on_close }));
        file.cast::<OpenFile>().write(OpenFile { base: ffi::sqlite3_file { pMethods: &raw const METHODS }, handle });
        if !flags_out.is_null() {
            *flags_out = flags;
        }
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite closes an open file once; the box goes back to where it came from.
    let handle = unsafe { Box::from_raw((*file.cast::<OpenFile>()).handle) };
    let key = (handle.name.clone(), handle.id);
    handle.mount.locks.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
    if handle.delete_on_close && handle.mount.alive().is_ok() {
        return code(handle.mount.disk.delete(&handle.name).map(drop), ffi::SQLITE_IOERR_CLOSE);
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn read(
    file: *mut ffi::sqlite3_file,
    out: *mut c_void,
    count: c_int,
    at: ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: an open file, and room for `count` bytes.
    let (handle, out) = unsafe {
        (handle(file), std::slice::from_raw_parts_mut(out.cast::<u8>(), usize::try_from(count).unwrap_or(0)))
    };
    match handle.mount.alive().and_then(|()| handle.mount.disk.read(&handle.name, place(at), out)) {
        Ok(read) if read == out.len() => ffi::SQLITE_OK,
        Ok(read) => {
            out[read..].fill(0);
            ffi::SQLITE_IOERR_SHORT_READ
        }
        Err(_) => ffi::SQLITE_IOERR_READ,
    }
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    bytes: *const c_void,
    count: c_int,
    at: ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: an open file, and `count` bytes.
    let (handle, bytes) =
        unsafe { (handle(file), std::slice::from_raw_parts(bytes.cast::<u8>(), usize::try_from(count).unwrap_or(0))) };
    let written = handle.mount.alive().and_then(|()| handle.mount.disk.write(&handle.name, place(at), bytes));
    code(written, ffi::SQLITE_IOERR_WRITE)
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, length: ffi::sqlite3_int64) -> c_int {
    // SAFETY: an open file.
    let handle = unsafe { handle(file) };
    let cut = handle.mount.alive().and_then(|()| handle.mount.disk.truncate(&handle.name, place(length)));
    code(cut, ffi::SQLITE_IOERR_TRUNCATE)
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    // SAFETY: an open file.
    let handle = unsafe { handle(file) };
    code(handle.mount.alive().and_then(|()| handle.mount.disk.sync(&handle.name)), ffi::SQLITE_IOERR_FSYNC)
}

unsafe extern "C" fn size(file: *mut ffi::sqlite3_file, out: *mut ffi::sqlite3_int64) -> c_int {
    // SAFETY: an open file, and a place for a number.
    unsafe {
        let handle = handle(file);
        *out = i64::try_from(handle.mount.disk.length(&handle.name)).expect("memory is smaller");
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // SAFETY: an open file.
    let handle = unsafe { handle(file) };
    if handle.mount.alive().is_err() {
        return ffi::SQLITE_IOERR_LOCK;
    }
    handle.mount.lock(&handle.name, handle.id, level)
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // SAFETY: an open file.
    let handle = unsafe { handle(file) };
    let mut locks = handle.mount.locks.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(held) = locks.get_mut(&(handle.name.clone(), handle.id)) {
        *held = level.min(*held);
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn check_reserved(file: *mut ffi::sqlite3_file, out: *mut c_int) -> c_int {
    // SAFETY: an open file, and a place for an answer.
    unsafe {
        let handle = handle(file);
        let locks = handle.mount.locks.lock().unwrap_or_else(PoisonError::into_inner);
        let reserved =
            |((name, _), level): (&(String, u64), &c_int)| *name == handle.name && *level >= ffi::SQLITE_LOCK_RESERVED;
        *out = c_int::from(locks.iter().any(reserved));
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn control(_: *mut ffi::sqlite3_file, _: c_int, _: *mut c_void) -> c_int {
    ffi::SQLITE_NOTFOUND
}

unsafe extern "C" fn sector(_: *mut ffi::sqlite3_file) -> c_int {
    512
}

unsafe extern "C" fn characteristics(_: *mut ffi::sqlite3_file) -> c_int {
    0
}

unsafe extern "C" fn delete(vfs: *mut ffi::sqlite3_vfs, name: *const c_char, _: c_int) -> c_int {
    // SAFETY: SQLite gives its own file system and a name.
    let (mount, name) = unsafe { (mount(vfs), text(name)) };
    match mount.alive().and_then(|()| mount.disk.delete(&name)) {
        Ok(true) => ffi::SQLITE_OK,
        Ok(false) => ffi::SQLITE_IOERR_DELETE_NOENT,
        Err(_) => ffi::SQLITE_IOERR_DELETE,
    }
}

unsafe extern "C" fn access(vfs: *mut ffi::sqlite3_vfs, name: *const c_char, _: c_int, out: *mut c_int) -> c_int {
    // SAFETY: SQLite gives its own file system, a name and a place for the answer.
    unsafe {
        let mount = mount(vfs);
        if mount.alive().is_err() {
            return ffi::SQLITE_IOERR_ACCESS;
        }
        *out = c_int::from(mount.disk.exists(&text(name)));
    }
    ffi::SQLITE_OK
}

/// Names are as they are.
unsafe extern "C" fn full_path(_: *mut ffi::sqlite3_vfs, name: *const c_char, room: c_int, out: *mut c_char) -> c_int {
    // SAFETY: a name, and `room` bytes for it.
    unsafe {
        let bytes = CStr::from_ptr(name).to_bytes_with_nul();
        if bytes.len() > usize::try_from(room).unwrap_or(0) {
            return ffi::SQLITE_CANTOPEN;
        }
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), out.cast(), bytes.len());
    }
    ffi::SQLITE_OK
}

/// Only ever asked of the default file system, and so not this one.
unsafe extern "C" fn randomness(_: *mut ffi::sqlite3_vfs, count: c_int, out: *mut c_char) -> c_int {
    // SAFETY: room for `count` bytes.
    unsafe { std::ptr::write_bytes(out, 7, usize::try_from(count).unwrap_or(0)) };
    count
}

/// Nothing waits: who holds a lock is no other thread.
unsafe extern "C" fn sleep(_: *mut ffi::sqlite3_vfs, micros: c_int) -> c_int {
    micros
}

unsafe extern "C" fn last_error(_: *mut ffi::sqlite3_vfs, _: c_int, _: *mut c_char) -> c_int {
    0
}

unsafe extern "C" fn time(vfs: *mut ffi::sqlite3_vfs, out: *mut ffi::sqlite3_int64) -> c_int {
    // SAFETY: SQLite gives its own file system and a place for the time.
    unsafe {
        *out = JULIAN_1970_MS.saturating_add_unsigned(mount(vfs).clock.now().0);
    }
    ffi::SQLITE_OK
}

#[cfg(test)]
mod tests;
