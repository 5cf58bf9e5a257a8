//! Secret keys and their files.
//!
//! A file holds Solana's own form: a JSON array of the 64 bytes of seed and public key, readable by its owner only.
//! Randomness comes from the caller. Which key may be read by whom is decided by the roles that open the files.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use ed25519_dalek::Signer as _;
use zeroize::Zeroizing;

use crate::address::{Address, Signature};

/// Longest key file read: 64 numbers of three digits with separators are under 400 bytes.
const FILE_BYTES_MAX: u64 = 4096;

/// A secret key. Not printable, erased when dropped.
pub struct Keypair(ed25519_dalek::SigningKey);

/// Why a key file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The operating system said no.
    #[error("cannot {verb} the key file {path}: {source}", path = path.display())]
    Io { verb: &'static str, path: PathBuf, source: io::Error },
    /// The file may be read by others.
    #[error("the key file {path} can be read by others (mode {mode:o}); run `chmod 600 {path}`", path = path.display())]
    OpenToOthers { path: PathBuf, mode: u32 },
    /// The content is no key.
    #[error("{path} is not a key file: expected a JSON array of 64 bytes whose last 32 are the public key of the first 32", path = path.display())]
    Malformed { path: PathBuf },
    /// A key is already there; it is never overwritten.
    #[error("{path} already exists and is kept; name another file, or move it away first", path = path.display())]
    Exists { path: PathBuf },
}

impl Keypair {
    /// The key of a 32-byte seed, which comes from the caller's source of randomness.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed))
    }

    /// The public half.
    #[must_use]
    pub fn address(&self) -> Address {
        Address(self.0.verifying_key().to_bytes())
    }

    /// Signs the bytes of a transaction message. Other statements carry a domain separator and are signed elsewhere.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Signature {
        Signature(self.0.sign(message).to_bytes())
    }

    /// The seed, for handing the key to another signer of the same process.
    #[must_use]
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// [`KeyFileError`] when the file is missing, open to others, too long or no key.
    pub fn load(path: &Path) -> Result<Self, KeyFileError> {
        let io = |source| KeyFileError::Io { verb: "read", path: path.to_owned(), source };
        let malformed = || KeyFileError::Malformed { path: path.to_owned() };
        let file = File::open(path).map_err(io)?;
        let mode = file.metadata().map_err(io)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyFileError::OpenToOthers { path: path.to_owned(), mode });
        }
        let mut text = Zeroizing::new(String::new());
        file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(|source| match source.kind() {
            io::ErrorKind::InvalidData => malformed(),
            _ => io(source),
        })?;
        let bytes: Zeroizing<Vec<u8>> = Zeroizing::new(serde_json::from_str(&text).map_err(|_| malformed())?);
        let bytes: Zeroizing<[u8; 64]> = Zeroizing::new(bytes.as_slice().try_into().map_err(|_| malformed())?);
        ed25519_dalek::SigningKey::from_keypair_bytes(&bytes).map(Self).map_err(|_| malformed())
    }

    /// Writes a new key file, readable by its owner only, and waits until it is on disk.
    ///
    /// # Errors
    /// [`KeyFileError::Exists`] when a file is there; [`KeyFileError::Io`] otherwise.
    pub fn save(&self, path: &Path) -> Result<(), KeyFileError> {
        let io = |source: io::Error| match source.kind() {
            io::ErrorKind::AlreadyExists => KeyFileError::Exists { path: path.to_owned() },
            _ => KeyFileError::Io { verb: "write", path: path.to_owned(), source },
        };
        let bytes = Zeroizing::new(self.0.to_keypair_bytes());
        let text = Zeroizing::new(serde_json::to_string(&bytes[..]).map_err(|e| io(e.into()))?);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(io)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(io)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)
    }
}

impl fmt::Debug for Keypair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keypair(of {})", self.address())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_round_trips_is_private_and_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.json");
        let key = Keypair::from_seed(&[3; 32]);
        key.save(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Keypair::load(&path).unwrap().address(), key.address());
        assert!(matches!(Keypair::from_seed(&[4; 32]).save(&path), Err(KeyFileError::Exists { .. })));
        assert_eq!(Keypair::load(&path).unwrap().address(), key.address());
    }

    #[test]
    fn bad_key_files_are_refused_in_words() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.json");
        let missing = Keypair::load(&path).unwrap_err().to_string();
        assert!(missing.contains("cannot read the key file"), "{missing}");
        let mut mixed = Keypair::from_seed(&[3; 32]).0.to_keypair_bytes();
        mixed[40] ^= 1;
        let long = format!("[{}1]", "1,".repeat(10_000));
        for content in ["", "[]", "{}", "[1,2,3]", "[256]", &long, &serde_json::to_string(&mixed[..]).unwrap()] {
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            assert!(matches!(Keypair::load(&path), Err(KeyFileError::Malformed { .. })), "{}", content.len());
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let open = Keypair::load(&path).unwrap_err().to_string();
        assert!(open.contains("chmod 600"), "{open}");
    }

    #[test]
    fn a_secret_key_does_not_print_its_seed() {
        let shown = format!("{:?}", Keypair::from_seed(&[9; 32]));
        assert!(shown.starts_with("Keypair(of ") && !shown.contains("9, 9"), "{shown}");
    }
}
