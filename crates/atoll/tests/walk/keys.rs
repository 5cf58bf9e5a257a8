//! The server has nobody's key but its own.

use std::fs;
use std::path::{Path, PathBuf};

use atoll_chain::{Address, Keypair, Signature};

use crate::network::Network;

/// A text or bytes that give a key away.
struct Form {
    whose: String,
    bytes: Vec<u8>,
}

/// The forms in which a key's secret half may lie around.
fn forms(file: &Path) -> Vec<Form> {
    let key = Keypair::load(file).unwrap();
    let (seed, public) = (*key.seed(), key.address().0);
    let both = <[u8; 64]>::try_from([seed, public].concat()).unwrap();
    let list = |between: &str| seed.map(|byte| byte.to_string()).join(between);
    let hex = |upper: bool| seed.map(|byte| if upper { format!("{byte:02X}") } else { format!("{byte:02x}") }).concat();
    let forms = [
        ("raw", seed.to_vec()),
        ("JSON", list(",").into_bytes()),
        ("spaced JSON", list(", ").into_bytes()),
        ("hex", hex(false).into_bytes()),
        ("HEX", hex(true).into_bytes()),
        ("base58 of the seed", Address(seed).to_string().into_bytes()),
        ("base58 of the pair", Signature(both).to_string().into_bytes()),
    ];
    let whose = file.file_name().unwrap().to_str().unwrap();
    forms.map(|(form, bytes)| Form { whose: format!("{whose} ({form})"), bytes }).into()
}

/// Forms by their first two bytes, so that one pass over megabytes looks for all of them.
struct Search {
    forms: Vec<Form>,
    starts: Vec<Vec<usize>>,
}

impl Search {
    fn new(files: &[PathBuf]) -> Self {
        let forms: Vec<Form> = files.iter().flat_map(|file| forms(file)).collect();
        let mut starts = vec![Vec::new(); 1 << 16];
        for (n, form) in forms.iter().enumerate() {
            starts[Self::start(&form.bytes)].push(n);
        }
        Self { forms, starts }
    }

    fn start(bytes: &[u8]) -> usize {
        usize::from(bytes[0]) << 8 | usize::from(bytes[1])
    }

    fn find(&self, within: &[u8]) -> Vec<&str> {
        let mut found = Vec::new();
        for at in 0..within.len().saturating_sub(1) {
            for n in &self.starts[Self::start(&within[at..])] {
                if within[at..].starts_with(&self.forms[*n].bytes) {
                    found.push(self.forms[*n].whose.as_str());
                }
            }
        }
        found
    }
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files
}

pub(crate) fn the_server_holds_no_foreign_key(network: &Network) {
    let state = network.folder.join("server");
    let mut foreign = files_below(&network.folder.join("wallets"));
    assert!(foreign.len() >= 7, "renter, admin, mint, attestor's owner and suppliers: {foreign:?}");
    let devices = network.told.worker_ids.keys().map(|role| network.folder.join(role).join("device.json"));
    foreign.extend(devices.filter(|file| file.exists()));
    let search = Search::new(&foreign);

    let mut places = files_below(&state);
    assert!(places.iter().any(|path| path.ends_with("control.db")) && places.len() > 10, "{places:?}");
    places.push(network.folder.join("logs/server.log"));
    let pid = network.server().pid;
    places.extend(["environ", "cmdline"].map(|name| PathBuf::from(format!("/proc/{pid}/{name}"))));
    for place in places {
        let content = fs::read(&place).unwrap_or_else(|error| panic!("{}: {error}", place.display()));
        let found = search.find(&content);
        assert!(found.is_empty(), "{} holds {found:?}", place.display());
    }

    // The same search finds every form where it lies, and the one key that does lie there.
    for form in &search.forms {
        let planted = [b"some text ", form.bytes.as_slice(), b" and more"].concat();
        assert!(search.find(&planted).contains(&form.whose.as_str()), "{} is not found", form.whose);
    }
    let own = state.join("keys/node.json");
    assert_eq!(Search::new(std::slice::from_ref(&own)).find(&fs::read(&own).unwrap()), ["node.json (JSON)"]);
}
