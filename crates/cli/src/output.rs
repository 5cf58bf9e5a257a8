//! What a command prints: text for people, one JSON value for scripts.
//!
//! Results go to stdout, everything about the way there to stderr. Colour only on a terminal and without `NO_COLOR`.

use std::io::{IsTerminal as _, Write as _};

use serde::Serialize;

use crate::exit::{Exit, Failure};

/// How this run prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output {
    /// One JSON value on stdout instead of text.
    pub json: bool,
    /// Whether stderr is a terminal that redraws lines.
    pub live: bool,
    /// Whether escape sequences for colour may be written.
    pub color: bool,
}

impl Output {
    /// Looks at the terminal and at `NO_COLOR` (<https://no-color.org>).
    #[must_use]
    pub fn detect(json: bool) -> Self {
        let live = std::io::stderr().is_terminal() && !json;
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { json, live: live && !dumb, color: live && !no_color && !dumb }
    }

    /// Prints the result: `text` for people, `value` for scripts.
    ///
    /// # Errors
    /// [`Failure`] when stdout is closed.
    pub fn result(self, value: &impl Serialize, text: impl FnOnce() -> String) -> Result<(), Failure> {
        let mut shown = if self.json {
            serde_json::to_string(value).map_err(|error| Failure::new(Exit::Internal, "output", error.to_string()))?
        } else {
            text()
        };
        while shown.ends_with('\n') {
            shown.pop();
        }
        shown.push('\n');
        self.raw(shown.as_bytes())
    }

    /// Writes bytes to stdout as they are: a job's own output.
    ///
    /// # Errors
    /// [`Failure`] when stdout is closed.
    pub fn raw(self, bytes: &[u8]) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        out.write_all(bytes)
            .and_then(|()| out.flush())
            .map_err(|error| Failure::new(Exit::Internal, "output", format!("cannot write to stdout: {error}")))
    }

    /// Says something about the way; silent with `--json`.
    pub fn say(self, line: &str) {
        if !self.json {
            eprintln!("{line}");
        }
    }

    /// Prints a failure to stderr.
    pub fn failure(self, failure: &Failure) {
        if self.json {
            eprintln!("{}", failure.json());
        } else if self.color {
            eprintln!("\x1b[1;31merror\x1b[0m: {failure}");
        } else {
            eprintln!("error: {failure}");
        }
    }
}

/// Columns padded to their widest cell, two spaces between; the last column is not padded.
#[must_use]
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = head.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells.zip(&widths).map(|(cell, &width)| format!("{cell:width$}")).collect();
        padded.join("  ").trim_end().to_owned()
    };
    let mut lines = vec![line(&mut head.iter().copied())];
    lines.extend(rows.iter().map(|row| line(&mut row.iter().map(String::as_str))));
    lines.join("\n")
}

/// A length of time as people say it: `7 s`, `3 min 20 s`, `2 h 5 min`, `4 d 1 h`.
#[must_use]
pub fn length(seconds: u64) -> String {
    let (days, hours, minutes, rest) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{rest} s"),
        (0, 0, _) => format!("{minutes} min {rest} s"),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// A count of bytes as people say it.
#[must_use]
pub fn bytes(count: u64) -> String {
    match count {
        0..=9_999 => format!("{count} B"),
        10_000..=10_485_759 => format!("{} KiB", count >> 10),
        _ => format!("{} MiB", count >> 20),
    }
}

/// Untrusted text on a terminal: control characters are shown, not obeyed.
#[must_use]
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn tables_line_up() {
        let rows = vec![vec!["cpu".into(), "4".into()], vec!["h100-sxm".into(), "16".into()]];
        expect![[r#"
            MODEL     FREE
            cpu       4
            h100-sxm  16"#]]
        .assert_eq(&table(&["MODEL", "FREE"], &rows));
    }

    #[test]
    fn lengths_and_sizes_read_well() {
        let shown: Vec<String> = [7, 200, 7500, 349_200].map(length).into();
        assert_eq!(shown, ["7 s", "3 min 20 s", "2 h 5 min", "4 d 1 h"]);
        assert_eq!([bytes(12), bytes(20_480), bytes(64 << 20)], ["12 B", "20 KiB", "64 MiB"]);
    }

    #[test]
    fn a_name_cannot_drive_the_terminal() {
        assert_eq!(plain("a\x1b[2Jb\nc"), "a\u{fffd}[2Jb\u{fffd}c");
    }
}
