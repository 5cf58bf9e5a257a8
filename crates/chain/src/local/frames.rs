//! Frames on disk: length, checksum, JSON. What the log and the snapshot are made of.

use std::fs::File;
use std::io::{self, Read as _, Write};
use std::path::Path;

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::log::LogError;

/// Length u32 and the first eight bytes of the content's SHA-256.
pub(super) const HEAD_BYTES: usize = 12;
/// Longest frame: 64 transactions that each rewrite ten of the largest accounts of the market stay far below.
const FRAME_BYTES_MAX: usize = 1 << 30;

/// Writes one frame; gives its bytes.
pub(super) fn write(file: &mut impl Write, content: &impl Serialize) -> io::Result<u64> {
    let mut frame = vec![0; HEAD_BYTES];
    serde_json::to_writer(&mut frame, content)?;
    let (head, content) = frame.split_at_mut(HEAD_BYTES);
    let len = u32::try_from(content.len()).ok().filter(|len| *len as usize <= FRAME_BYTES_MAX);
    let len = len.ok_or_else(|| io::Error::other("more than 1 GiB in one write"))?;
    head[..4].copy_from_slice(&len.to_le_bytes());
    head[4..].copy_from_slice(&checksum(content));
    file.write_all(&frame)?;
    Ok(frame.len() as u64)
}

fn checksum(content: &[u8]) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&Sha256::digest(content)[..8]);
    bytes
}

/// Reads frames until the end or the first unfinished one; `at` is then where the good ones end.
pub(super) struct Frames<'a> {
    reader: io::BufReader<&'a File>,
    path: &'a Path,
    pub(super) at: u64,
    pub(super) len: u64,
}

impl<'a> Frames<'a> {
    pub(super) fn new(file: &'a File, path: &'a Path) -> Result<Self, LogError> {
        let io = |source| LogError::Io { verb: "read", path: path.to_owned(), source };
        Ok(Self { reader: io::BufReader::new(file), path, at: 0, len: file.metadata().map_err(io)?.len() })
    }

    /// The next frame's content; none at the end, and where a frame is unfinished.
    pub(super) fn next(&mut self) -> Result<Option<Vec<u8>>, LogError> {
        let io = |source| LogError::Io { verb: "read", path: self.path.to_owned(), source };
        let left = self.len - self.at;
        if left < HEAD_BYTES as u64 {
            return Ok(None);
        }
        let mut head = [0; HEAD_BYTES];
        self.reader.read_exact(&mut head).map_err(io)?;
        let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        let end = HEAD_BYTES as u64 + u64::from(len);
        if len == 0 {
            // A file that grew before its bytes arrived reads as zeros to its end; anything else is damage.
            let mut rest = Vec::new();
            (&mut self.reader).take(FRAME_BYTES_MAX as u64).read_to_end(&mut rest).map_err(io)?;
            let zeros = head.iter().chain(&rest).all(|byte| *byte == 0);
            return if zeros { Ok(None) } else { Err(self.damaged()) };
        }
        if end > left {
            return Ok(None);
        }
        let mut content = vec![0; len as usize];
        self.reader.read_exact(&mut content).map_err(io)?;
        if checksum(&content) != head[4..] {
            return if end == left { Ok(None) } else { Err(self.damaged()) };
        }
        self.at += end;
        Ok(Some(content))
    }

    pub(super) fn damaged(&self) -> LogError {
        LogError::Damaged { path: self.path.to_owned(), at: self.at }
    }
}
