//! The node's certificate and what a TLS session tells handlers.
//!
//! The certificate is self-signed, made once and kept in `tls/`: workers and clients pin `tls/cert.pem`, so a new one
//! would cut them all off. TLS ends here and nowhere before (passthrough at proxies), because device keys sign the
//! session's exporter.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use atoll_api::link::{EXPORTER_BYTES, EXPORTER_LABEL};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::places::Place;

/// Who is at the other end of a request's connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// 32 bytes that only the two ends of this TLS session know.
    pub exporter: [u8; EXPORTER_BYTES],
    /// The connection's place among those allowed at once; given back when the last holder is gone. None where nobody
    /// counts them.
    pub place: Option<Arc<Place>>,
}

/// The exporter of an accepted session.
///
/// # Errors
/// When the handshake is not over.
pub fn exporter(session: &rustls::ServerConnection) -> Result<[u8; EXPORTER_BYTES], rustls::Error> {
    session.export_keying_material([0; EXPORTER_BYTES], EXPORTER_LABEL, None)
}

/// The paths of certificate and key under a state folder.
#[must_use]
pub fn paths(state: &Path) -> (PathBuf, PathBuf) {
    (state.join("tls/cert.pem"), state.join("tls/key.pem"))
}

/// Loads the certificate, made for `127.0.0.1`, `localhost` and `names` when there is none yet.
///
/// # Errors
/// When a name is not usable, or the files cannot be read or written.
pub fn load(state: &Path, names: &[String]) -> anyhow::Result<Arc<ServerConfig>> {
    let (cert_path, key_path) = paths(state);
    if !cert_path.exists() {
        create(&cert_path, &key_path, names)?;
    }
    let certificates = CertificateDer::pem_file_iter(&cert_path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("reading the certificate {}", cert_path.display()))?;
    let key = PrivateKeyDer::from_pem_file(&key_path)
        .with_context(|| format!("reading the certificate's key {}", key_path.display()))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(certificates, key)?;
    // A node that dies takes its sessions with it, so resuming saves the workers of a storm nothing, and each ticket costs
    // the handshake that makes it.
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn create(cert_path: &Path, key_path: &Path, names: &[String]) -> anyhow::Result<()> {
    let folder = cert_path.parent().context("the certificate's path has no folder")?;
    std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let mut all = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    for name in names {
        let usable = rustls::pki_types::ServerName::try_from(name.as_str());
        usable.with_context(|| format!("`{name}` in `names` is no host name or address"))?;
        all.push(name.clone());
    }
    let made = rcgen::generate_simple_self_signed(all).context("making a certificate for the configured names")?;
    // The key first: a certificate without its key would be pinned by workers and never work.
    write_new(key_path, made.signing_key.serialize_pem().as_bytes(), 0o600)?;
    write_new(cert_path, made.cert.pem().as_bytes(), 0o644)
}

/// Writes a file that only its owner may change, replacing a half-written one of an earlier start.
pub(crate) fn write_new(path: &Path, bytes: &[u8], mode: u32) -> anyhow::Result<()> {
    let temporary = path.with_extension("new");
    let written = || -> std::io::Result<()> {
        match std::fs::remove_file(&temporary) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    written().with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_certificate_is_made_once_and_its_key_is_private() {
        let folder = tempfile::tempdir().unwrap();
        load(folder.path(), &["control.example".to_owned()]).unwrap();
        let (cert, key) = paths(folder.path());
        let first = std::fs::read(&cert).unwrap();
        load(folder.path(), &[]).unwrap();
        assert_eq!(std::fs::read(&cert).unwrap(), first);
        assert_eq!(std::fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
        let other = tempfile::tempdir().unwrap();
        let refused = load(other.path(), &["not a name\n".to_owned()]).unwrap_err();
        assert!(refused.to_string().contains("no host name"), "{refused}");
        assert!(!paths(other.path()).0.exists());
    }
}
