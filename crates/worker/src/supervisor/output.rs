//! The output spool: what the tenant's program printed, bounded.
//!
//! Files `output-OFFSET.log`, named by the offset of their first byte, at most two; when the newer one has reached half of
//! the bound, the older one is deleted. Offsets count from the first byte ever printed, so a reader that comes late sees
//! that it missed something.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Result, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The files being written.
#[derive(Debug)]
pub struct Spool {
    dir: PathBuf,
    file: File,
    /// Offset of the file's first byte.
    base: u64,
    older: Option<u64>,
    end: u64,
    segment_bytes_max: u64,
}

fn path(dir: &Path, base: u64) -> PathBuf {
    dir.join(format!("output-{base}.log"))
}

fn create(dir: &Path, base: u64) -> Result<File> {
    OpenOptions::new().append(true).create_new(true).mode(0o600).open(path(dir, base))
}

impl Spool {
    /// Begins an empty spool of at most `bytes_max`.
    ///
    /// # Errors
    /// The directory has served a pod before, or cannot be written.
    pub fn create(dir: &Path, bytes_max: u64) -> Result<Self> {
        let file = create(dir, 0)?;
        Ok(Self { dir: dir.to_owned(), file, base: 0, older: None, end: 0, segment_bytes_max: (bytes_max / 2).max(1) })
    }

    /// Appends what was printed.
    ///
    /// # Errors
    /// The disk is full or gone.
    pub fn append(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let room = self.segment_bytes_max - (self.end - self.base);
            if room == 0 {
                self.rotate()?;
                continue;
            }
            let (now, later) = bytes.split_at(bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX)));
            self.file.write_all(now)?;
            self.end += now.len() as u64;
            bytes = later;
        }
        Ok(())
    }

    fn rotate(&mut self) -> Result<()> {
        self.file = create(&self.dir, self.end)?;
        if let Some(older) = self.older.replace(self.base) {
            fs::remove_file(path(&self.dir, older))?;
        }
        self.base = self.end;
        Ok(())
    }

    /// Offset behind the last byte.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.end
    }
}

/// Reads up to `buffer.len()` bytes at `offset` or, where those were dropped, at the first offset kept.
/// Answers the offset of the first byte read and the number of bytes, 0 at the end.
///
/// # Errors
/// The spool cannot be read.
pub fn read(dir: &Path, offset: u64, buffer: &mut [u8]) -> Result<(u64, usize)> {
    let mut bases: Vec<u64> = fs::read_dir(dir)?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.strip_prefix("output-")?.strip_suffix(".log")?.parse().ok())
        .collect();
    bases.sort_unstable();
    let Some(first) = bases.first() else { return Ok((offset, 0)) };
    let mut at = offset.max(*first);
    for (n, base) in bases.iter().enumerate() {
        // A later file holds it.
        if bases.get(n + 1).is_some_and(|next| *next <= at) {
            continue;
        }
        let mut file = match File::open(path(dir, *base)) {
            // Deleted since the listing: what it held is gone, the next one begins later.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && n + 1 < bases.len() => {
                at = bases[n + 1];
                continue;
            }
            other => other?,
        };
        file.seek(SeekFrom::Start(at - base))?;
        return Ok((at, file.read(buffer)?));
    }
    Ok((at, 0))
}

/// What was printed, as one line without control characters; none when there is nothing to read in it.
#[must_use]
pub fn in_a_line(printed: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(printed);
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let words: Vec<&str> = plain.split_whitespace().collect();
    (!words.is_empty()).then(|| words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_printed_is_told_in_a_line() {
        assert_eq!(in_a_line(b"no module\n\tnamed \x1b[31m'x'\r\n\0").as_deref(), Some("no module named [31m'x'"));
        assert_eq!(in_a_line(b"\xff\xfe end").as_deref(), Some("\u{fffd}\u{fffd} end"));
        assert_eq!((in_a_line(b""), in_a_line(b" \n\x07")), (None, None));
    }

    fn all(dir: &Path, mut offset: u64) -> (u64, Vec<u8>) {
        let (mut first, mut bytes, mut buffer) = (None, vec![], [0; 7]);
        loop {
            let (at, count) = read(dir, offset, &mut buffer).unwrap();
            first.get_or_insert(at);
            if count == 0 {
                return (first.unwrap(), bytes);
            }
            bytes.extend_from_slice(&buffer[..count]);
            offset = at + count as u64;
        }
    }

    #[test]
    fn output_reads_back_from_any_offset() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::create(dir.path(), 1000).unwrap();
        assert_eq!(all(dir.path(), 0), (0, vec![]));
        spool.append(b"hello ").unwrap();
        spool.append(b"world").unwrap();
        assert_eq!(all(dir.path(), 0), (0, b"hello world".to_vec()));
        assert_eq!(all(dir.path(), 6), (6, b"world".to_vec()));
        assert_eq!(all(dir.path(), 11), (11, vec![]));
        assert_eq!(all(dir.path(), 99), (99, vec![]));
    }

    #[test]
    fn the_spool_is_bounded_and_says_what_it_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::create(dir.path(), 20).unwrap();
        let printed: Vec<u8> = (0..95).collect();
        for part in printed.chunks(13) {
            spool.append(part).unwrap();
        }
        assert_eq!(spool.end(), 95);
        let (first, kept) = all(dir.path(), 0);
        assert_eq!(first, 80);
        assert_eq!(kept, printed[80..]);
        assert!(fs::read_dir(dir.path()).unwrap().count() <= 2);
    }
}
