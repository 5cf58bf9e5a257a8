//! Free space, and how fast bytes reach the disk.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Instant;

/// What is written: 8 blocks of 1 MiB, a tenth of a second on a slow disk.
const BLOCKS: usize = 8;
const BLOCK_BYTES: usize = 1 << 20;

/// Free space for ordinary users.
///
/// # Errors
/// The folder cannot be asked.
pub fn free_bytes(folder: &Path) -> io::Result<u64> {
    let disk = nix::sys::statvfs::statvfs(folder)?;
    Ok(disk.blocks_available().saturating_mul(disk.fragment_size()))
}

/// Writes and syncs a few MiB; at least 1 MiB/s.
///
/// # Errors
/// The folder cannot be written.
pub fn write_speed_mib_s(folder: &Path) -> io::Result<u32> {
    let path = folder.join(format!(".atoll-probe-{}", std::process::id()));
    let measured = (|| -> io::Result<_> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let block: Vec<u8> = (0..BLOCK_BYTES).map(|at| at.to_le_bytes()[0]).collect();
        let begun = Instant::now();
        for _ in 0..BLOCKS {
            file.write_all(&block)?;
        }
        file.sync_all()?;
        Ok(begun.elapsed())
    })();
    let removed = fs::remove_file(&path);
    let took_us = measured?.as_micros().max(1);
    removed?;
    let speed = (BLOCKS as u128 * 1_000_000 / took_us).max(1);
    Ok(u32::try_from(speed).unwrap_or(u32::MAX))
}
