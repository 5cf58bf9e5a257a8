//! One job, followed from outside as its owner sees it.

use std::cell::{Cell, RefCell};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::network::{Network, repository, until};

/// A submitted job and its events so far. Training steps come by the hundred and are not asked of.
pub(crate) struct Job {
    pub(crate) id: String,
    pub(crate) cluster: String,
    seen: Cell<u64>,
    events: RefCell<Vec<Value>>,
}

/// Writes the folder of all jobs of this test: the digits example, and the programs beside it.
pub(crate) fn folder(into: &Path) -> PathBuf {
    let folder = into.join("job");
    fs::create_dir_all(&folder).unwrap();
    for name in ["model.py", "train.py"] {
        fs::copy(repository().join("examples/digits").join(name), folder.join(name)).unwrap();
    }
    for name in ["walk.py", "idle.py", "probe.py", "steady.py", "ticks.py"] {
        fs::copy(repository().join("crates/atoll/tests/walk/job").join(name), folder.join(name)).unwrap();
    }
    fs::write(folder.join("atoll.toml"), MANIFEST).unwrap();
    folder
}

const MANIFEST: &str = r#"[job]
name = "walk"
entry = "python walk.py"
devices = 2
model = "cpu"
pack = "ray-torch"
checkpoints = true
max_price = "0.20"
max_hours = 1
"#;

impl Job {
    /// Submits the folder of all jobs with these flags above it.
    pub(crate) fn submit(network: &Network, flags: &[&str]) -> Self {
        let folder = folder(&network.folder);
        let submit = ["job", "submit", folder.to_str().unwrap(), "--yes", "--detach"];
        Self::known(&network.json(&[&submit, flags].concat()))
    }

    /// A job that was submitted, from what was answered.
    pub(crate) fn known(job: &Value) -> Self {
        let text = |name: &str| job[name].as_str().unwrap().to_owned();
        Self { id: text("job"), cluster: text("cluster"), seen: Cell::new(0), events: RefCell::default() }
    }

    pub(crate) fn show(&self, network: &Network) -> Value {
        network.json(&["job", "show", &self.id])
    }

    /// Events of a kind so far.
    pub(crate) fn events(&self, kind: &str) -> Vec<Value> {
        self.events.borrow().iter().filter(|event| event["kind"] == kind).cloned().collect()
    }

    /// The number of the newest event seen.
    pub(crate) fn seen(&self) -> u64 {
        self.seen.get()
    }

    pub(crate) fn output(&self, network: &Network) -> Vec<u8> {
        let output = network.atoll(&network.home(), &["logs", &self.id]);
        assert!(output.status.success());
        output.stdout
    }

    fn look(&self, network: &Network) -> Value {
        let page = network.json(&["job", "events", &self.id, "--after", &self.seen.get().to_string()]);
        for event in page["events"].as_array().unwrap() {
            self.seen.set(event["seq"].as_u64().unwrap());
            self.events.borrow_mut().push(event.clone());
        }
        self.show(network)
    }

    /// Follows the job until `found` finds something in how it stands.
    pub(crate) fn until<T>(&self, network: &Network, what: &str, found: impl Fn(&Value) -> Option<T>) -> T {
        until(&format!("{what} (job {})", self.id), || {
            let now = self.look(network);
            let it = found(&now);
            let over = matches!(now["state"].as_str().unwrap(), "succeeded" | "failed" | "stopped");
            assert!(it.is_some() || !over, "waiting for {what}, the job is {}: {}", now["state"], now["reason"]);
            it
        })
    }

    /// Follows the job until it has reported an event of this kind after `seq`.
    pub(crate) fn until_event(&self, network: &Network, kind: &str, seq: u64) -> Value {
        self.until(network, &format!("an event `{kind}`"), |_| {
            self.events(kind).into_iter().find(|event| event["seq"].as_u64().unwrap() > seq)
        })
    }
}

/// The running pod of a role, from how a job stands.
pub(crate) fn running<'a>(job: &'a Value, role: &str) -> Option<&'a Value> {
    job["pods"].as_array().unwrap().iter().find(|pod| pod["role"] == role && pod["state"] == "running")
}
