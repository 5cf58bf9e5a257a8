//! Atoll's Python package as it lies in every pod at /opt/atoll: part of this binary, so that a worker needs no checkout.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use atoll_domain::key::Digest;

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        /// Name and content of every file of the package.
        const FILES: &[(&str, &str)] = &[$(($name, include_str!(concat!("../../../sdk/python/atoll/", $name)))),*];
    };
}

files!["__init__.py", "bundle.py", "checkpoint.py", "pod.py", "py.typed", "reporting.py", "store.py", "weights.py"];

/// Writes the package below `state` and gives the folder for /opt/atoll. A folder is named by its content, so that pods
/// which still have an older one keep it.
///
/// # Errors
/// The folder cannot be written.
pub fn unpack(state: &Path) -> io::Result<PathBuf> {
    let parts: Vec<&[u8]> = FILES.iter().flat_map(|(name, text)| [name.as_bytes(), text.as_bytes()]).collect();
    let digest = Digest::of_parts(&parts).to_string();
    let folder = state.join("sdk").join(&digest[..16]);
    let package = folder.join("atoll");
    std::fs::create_dir_all(&package)?;
    for (name, text) in FILES {
        crate::world::store::write_whole(&package.join(name), text.as_bytes(), 0o644)?;
    }
    for readable in [&folder, &package] {
        // Pods run under other user ids than the worker.
        std::fs::set_permissions(readable, std::fs::Permissions::from_mode(0o755))?;
    }
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_file_of_the_package_is_here() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sdk/python/atoll");
        let names = std::fs::read_dir(source).unwrap().map(|entry| entry.unwrap());
        let names: BTreeSet<String> = names
            .filter(|entry| entry.file_type().unwrap().is_file())
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        assert_eq!(names, FILES.iter().map(|(name, _)| (*name).to_owned()).collect());
    }

    #[test]
    fn the_package_is_written_once_for_each_content() {
        let state = tempfile::tempdir().unwrap();
        let folder = unpack(state.path()).unwrap();
        assert_eq!(unpack(state.path()).unwrap(), folder);
        assert!(std::fs::read_to_string(folder.join("atoll/pod.py")).unwrap().contains("ray"));
    }
}
