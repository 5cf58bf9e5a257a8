//! Figures that another program of the workspace takes: it prints a JSON object of keys, each a number or
//! `{"value", "how", "why"}`.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// Runs a program of the workspace; the last line that it prints is its JSON.
pub(super) fn run(repository: &Path, arguments: &[&str]) -> Result<Value> {
    eprintln!("$ cargo {}", arguments.join(" "));
    let output = Command::new("cargo")
        .args(arguments)
        .current_dir(repository)
        .stderr(Stdio::inherit())
        .output()
        .context("cargo cannot be started")?;
    if !output.status.success() {
        bail!("`cargo {}` ended with {}", arguments.join(" "), output.status);
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().last().context("it printed nothing")?;
    serde_json::from_str(line).with_context(|| format!("`cargo {}` ended without JSON", arguments.join(" ")))
}

/// One key of another program's answer: `key` or `figures.key`, a number or an object with one.
pub(super) fn read(told: &Value, key: &str) -> Result<(f64, String), String> {
    let said = if told[key].is_null() { &told["figures"][key] } else { &told[key] };
    let value = said.as_f64().or_else(|| said["value"].as_f64());
    let word = |name: &str| said[name].as_str().unwrap_or_default().to_owned();
    value.map(|value| (value, word("how"))).ok_or_else(|| match word("why") {
        why if why.is_empty() => format!("the program gave no {key}"),
        why => why,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn another_programs_figures_are_read_in_both_forms() {
        let told = json!({"a": 3, "b": {"value": 2.5, "how": "so"}, "c": {"value": null, "why": "no"}});
        assert_eq!(read(&told, "a"), Ok((3.0, String::new())));
        assert_eq!(read(&json!({"figures": told}), "b"), Ok((2.5, "so".to_owned())));
        assert_eq!(read(&told, "c"), Err("no".to_owned()));
        assert_eq!(read(&told, "d"), Err("the program gave no d".to_owned()));
    }
}
