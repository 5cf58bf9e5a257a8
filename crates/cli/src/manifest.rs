//! `atoll.toml`: what a job's folder says of itself, read strictly, and what flags put above it.
//!
//! Every complaint names the file, line and column, or the flag, and what would be right. Prices and hours are read from
//! their digits: no float ever holds money.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use atoll_domain::job::{DEVICES_MAX, SECONDS_MAX};
use atoll_domain::money::UsdMicrosPerHour;
use serde::Deserialize;
use toml::{Spanned, Value};

use crate::exit::Failure;

/// The file's name.
pub const FILE: &str = "atoll.toml";
/// Longest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 256 << 10;

/// What to run, as the renter wants it: file and flags merged, every value within its bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobPlan {
    /// A short name for people.
    pub name: String,
    /// The command line.
    pub entry: String,
    /// Devices, all or nothing.
    pub devices: u32,
    /// Device model, by catalogue name.
    pub model: String,
    /// Environment, by name.
    pub pack: String,
    /// Whether it may be started again from its last checkpoint.
    pub checkpoints: bool,
    /// The most one device-hour may cost.
    pub price_max: UsdMicrosPerHour,
    /// The longest it may run.
    pub seconds_max: u64,
    /// Environment variables for the command.
    pub env: BTreeMap<String, String>,
}

/// Flags of `atoll job submit` that stand above the file, as typed.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct Overrides {
    /// A short name for the job [default: the file's, else the folder's]
    #[arg(long)]
    pub name: Option<String>,
    /// The command line to run on the head pod, for example "python train.py"
    #[arg(long, value_name = "CMD")]
    pub entry: Option<String>,
    /// How many devices, all or nothing
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub devices: Option<String>,
    /// Device model, a name that `atoll gpu list` shows
    #[arg(long)]
    pub model: Option<String>,
    /// Python environment, by name
    #[arg(long)]
    pub pack: Option<String>,
    /// The most you pay, in USD per device-hour, for example 0.20
    #[arg(long, value_name = "USD", allow_hyphen_values = true)]
    pub max_price: Option<String>,
    /// The longest it may run, in hours, for example 0.5
    #[arg(long, value_name = "HOURS", allow_hyphen_values = true)]
    pub max_hours: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    job: Spanned<Job>,
    #[serde(default)]
    env: BTreeMap<String, Spanned<Value>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Job {
    name: Option<Spanned<String>>,
    entry: Option<Spanned<String>>,
    devices: Option<Spanned<Value>>,
    model: Option<Spanned<String>>,
    pack: Option<Spanned<String>>,
    checkpoints: Option<bool>,
    max_price: Option<Spanned<Value>>,
    max_hours: Option<Spanned<Value>>,
    #[serde(default)]
    env: BTreeMap<String, Spanned<Value>>,
}

/// Line and column of a byte, both from 1.
#[must_use]
pub fn place(text: &str, at: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(at.min(text.len()))];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |tail| tail.chars().count()) + 1;
    (line, column)
}

/// A value and where it was written.
struct Said {
    text: String,
    place: String,
}

struct Source<'a> {
    text: &'a str,
}

impl Source<'_> {
    fn place(&self, span: &Range<usize>) -> String {
        let (line, column) = place(self.text, span.start);
        format!("{FILE}:{line}:{column}")
    }

    fn string(&self, value: Spanned<String>) -> Said {
        Said { place: self.place(&value.span()), text: value.into_inner() }
    }

    /// The digits of a number or the content of a string; anything else keeps its own spelling and fails later.
    fn digits(&self, value: Spanned<Value>) -> Said {
        let span = value.span();
        let place = self.place(&span);
        let text = match value.into_inner() {
            Value::String(text) => text,
            _ => self.text.get(span).unwrap_or("").trim().to_owned(),
        };
        Said { text, place }
    }

    fn env(&self, table: BTreeMap<String, Spanned<Value>>) -> Result<BTreeMap<String, String>, Failure> {
        let read = |(name, value): (String, Spanned<Value>)| {
            let place = self.place(&value.span());
            match value.into_inner() {
                Value::String(text) => Ok((name, text)),
                Value::Integer(number) => Ok((name, number.to_string())),
                Value::Boolean(yes) => Ok((name, yes.to_string())),
                _ => Err(Failure::usage(format!("{place}: `env.{name}` must be text: put it in quotation marks"))),
            }
        };
        table.into_iter().map(read).collect()
    }
}

/// Reads a folder's `atoll.toml` and puts the flags above it. Without a file, flags alone must say everything.
///
/// # Errors
/// [`Failure`] naming line and column, or the flag, and what would be right.
pub fn read(folder: &Path, flags: &Overrides) -> Result<JobPlan, Failure> {
    let path = folder.join(FILE);
    let shown = path.display();
    let meta = match std::fs::metadata(folder) {
        Ok(meta) if meta.is_dir() => std::fs::metadata(&path),
        Ok(_) => {
            return Err(Failure::usage(format!(
                "{} is not a folder: give the folder that holds the job's code",
                folder.display()
            )));
        }
        Err(error) => {
            return Err(Failure::usage(format!(
                "cannot read the folder {}: {error}; check the path and your rights to it",
                folder.display()
            )));
        }
    };
    let text = match meta {
        Ok(meta) if meta.len() > FILE_BYTES_MAX => {
            return Err(Failure::usage(format!("{shown} has {} bytes; at most {FILE_BYTES_MAX} are read", meta.len())));
        }
        Ok(meta) if meta.is_file() => std::fs::read_to_string(&path)
            .map_err(|error| Failure::usage(format!("cannot read {shown}: {error}; check your rights to it")))?,
        Ok(_) => return Err(Failure::usage(format!("{shown} is not a file"))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => "[job]\n".to_owned(),
        Err(error) => return Err(Failure::usage(format!("cannot read {shown}: {error}; check your rights to it"))),
    };
    let folder_name = folder.canonicalize().ok().and_then(|full| Some(full.file_name()?.to_str()?.to_owned()));
    plan(&text, flags, folder_name.as_deref())
}

/// Merges the text of an `atoll.toml` with flags. Pure.
///
/// # Errors
/// As [`read`].
pub fn plan(text: &str, flags: &Overrides, folder_name: Option<&str>) -> Result<JobPlan, Failure> {
    let source = Source { text };
    let file: File = toml::from_str(text).map_err(|error| {
        let at = source.place(&error.span().unwrap_or(0..0));
        // The parser repeats a key that it cannot place, however long it is.
        let said: String = error.message().trim_end().chars().take(300).collect();
        Failure::usage(format!("{at}: {said}{}", hint(error.message())))
    })?;
    let job = file.job.into_inner();
    let flag = |value: &Option<String>, name: &str| {
        value.as_ref().map(|text| Said { text: text.clone(), place: format!("--{name}") })
    };
    let either = |value: &Option<String>, name: &str, written: Option<Said>, example: &str| {
        flag(value, name).or(written).ok_or_else(|| missing(name, example))
    };
    let named = flag(&flags.name, "name").or(job.name.map(|v| source.string(v)));
    let name = match named {
        Some(said) => checked_name("name", said)?,
        None => from_folder(folder_name),
    };
    let entry = either(&flags.entry, "entry", job.entry.map(|v| source.string(v)), "\"python train.py\"")?;
    let model = either(&flags.model, "model", job.model.map(|v| source.string(v)), "\"cpu\"")?;
    let pack = either(&flags.pack, "pack", job.pack.map(|v| source.string(v)), "\"ray-torch\"")?;
    let devices = flag(&flags.devices, "devices").or(job.devices.map(|v| source.digits(v)));
    let price = either(&flags.max_price, "max-price", job.max_price.map(|v| source.digits(v)), "\"0.20\"")?;
    let hours = flag(&flags.max_hours, "max-hours").or(job.max_hours.map(|v| source.digits(v)));
    let mut env = source.env(file.env)?;
    env.extend(source.env(job.env)?);
    Ok(JobPlan {
        name,
        entry: checked_entry(entry)?,
        devices: devices.map_or(Ok(1), read_devices)?,
        model: checked_name("model", model)?,
        pack: checked_name("pack", pack)?,
        checkpoints: job.checkpoints.unwrap_or(false),
        price_max: price.text.parse().map_err(|error| Failure::usage(format!("{}: {error}", price.place)))?,
        seconds_max: hours.map_or(Ok(3600), read_hours)?,
        env,
    })
}

/// What to do about a message of the TOML parser.
fn hint(message: &str) -> &'static str {
    if message.starts_with("missing field `job`") {
        "; an atoll.toml begins with the line [job]"
    } else if message.starts_with("unknown field") || message.starts_with("invalid type") {
        ""
    } else {
        "; the file must be TOML, for example `devices = 3`"
    }
}

fn missing(name: &str, example: &str) -> Failure {
    let key = name.replace('-', "_");
    Failure::usage(format!("no {key}: write `{key} = {example}` under [job] in {FILE}, or add --{name}"))
}

fn from_folder(folder: Option<&str>) -> String {
    let mut name: String = folder
        .unwrap_or("job")
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '.' { c.to_ascii_lowercase() } else { '-' })
        .take(64)
        .collect();
    if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        name = format!("job{name}").chars().take(64).collect();
    }
    name
}

fn checked_name(field: &str, said: Said) -> Result<String, Failure> {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    let starts_well = said.text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    if starts_well && said.text.len() <= 64 && said.text.bytes().all(inner) {
        return Ok(said.text);
    }
    let shown: String = said.text.chars().take(40).collect();
    Err(Failure::usage(format!(
        "{}: {field} `{}` must be 1 to 64 lower-case letters, digits, `-` or `.`, and start with a letter or digit",
        said.place,
        crate::output::plain(&shown)
    )))
}

fn checked_entry(said: Said) -> Result<String, Failure> {
    if said.text.trim().is_empty() || said.text.len() > 4096 || said.text.contains('\0') {
        let place = said.place;
        return Err(Failure::usage(format!(
            "{place}: entry must be a command line of 1 to 4096 bytes, for example \"python train.py\""
        )));
    }
    Ok(said.text)
}

fn read_devices(said: Said) -> Result<u32, Failure> {
    match said.text.parse::<u32>() {
        Ok(devices) if (1..=DEVICES_MAX).contains(&devices) => Ok(devices),
        _ => {
            let shown: String = said.text.chars().take(40).collect();
            Err(Failure::usage(format!(
                "{}: devices `{}` must be a whole number from 1 to {DEVICES_MAX}",
                said.place,
                crate::output::plain(&shown)
            )))
        }
    }
}

fn read_hours(said: Said) -> Result<u64, Failure> {
    seconds_of_hours(&said.place, "max_hours", &said.text)
}

/// Hours with at most 6 digits after the point, to whole seconds, rounded up.
///
/// # Errors
/// [`Failure`] that names the place and the field.
pub(crate) fn seconds_of_hours(place: &str, field: &str, text: &str) -> Result<u64, Failure> {
    let hours_max = SECONDS_MAX / 3600;
    let seconds = || {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(fraction) || fraction.len() > 6 {
            return None;
        }
        let whole: u64 = whole.parse().ok()?;
        let millionths: u64 = format!("{fraction:0<6}").parse().ok()?;
        let seconds = whole.checked_mul(3600)?.checked_add((millionths * 3600).div_ceil(1_000_000))?;
        (1..=SECONDS_MAX).contains(&seconds).then_some(seconds)
    };
    seconds().ok_or_else(|| {
        let shown: String = text.chars().take(40).collect();
        Failure::usage(format!(
            "{place}: {field} `{}` must be above 0 and at most {hours_max}, with at most 6 digits after the point, for example 0.5",
            crate::output::plain(&shown)
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    const GOOD: &str = r#"
[job]
name = "digits"
entry = "python train.py"
devices = 3
model = "cpu"
pack = "ray-torch"
checkpoints = true
max_price = 0.20
max_hours = 0.5
[env]
EPOCHS = 30
"#;

    fn refused(text: &str) -> String {
        plan(text, &Overrides::default(), Some("My Folder"))
            .map_or_else(|failure| failure.message, |p| format!("{p:?}"))
    }

    #[test]
    fn a_good_file_is_read_exactly() {
        let read = plan(GOOD, &Overrides::default(), None).unwrap();
        assert_eq!((read.devices, read.price_max.0, read.seconds_max), (3, 200_000, 1800));
        assert_eq!(read.env["EPOCHS"], "30");
        assert!(read.checkpoints);
    }

    #[test]
    fn flags_stand_above_the_file_and_may_stand_alone() {
        let flags = Overrides {
            devices: Some("2".into()),
            max_price: Some("1.5".into()),
            model: Some("h100".into()),
            pack: Some("p".into()),
            entry: Some("true".into()),
            ..Overrides::default()
        };
        let read = plan(GOOD, &flags, None).unwrap();
        assert_eq!((read.devices, read.price_max.0, read.model.as_str()), (2, 1_500_000, "h100"));
        let alone = plan("[job]\n", &flags, Some("My Folder")).unwrap();
        assert_eq!((alone.name.as_str(), alone.seconds_max), ("my-folder", 3600));
        let bad = plan(GOOD, &Overrides { devices: Some("-1".into()), ..flags }, None).unwrap_err();
        assert_eq!(bad.message, "--devices: devices `-1` must be a whole number from 1 to 10000");
    }

    #[test]
    fn every_bad_file_is_told_where_and_what() {
        let with = |from: &str, to: &str| refused(&GOOD.replace(from, to));
        let all = [
            with("devices = 3", "devices = 0"),
            with("devices = 3", "devices = 1_000_000_000"),
            with("devices = 3", "devices = -2"),
            with("devices = 3", "devices = \"three\""),
            with("devices = 3", "devices = 2.5"),
            with("devices = 3", "devices = 3\ndevices = 4"),
            with("devices = 3", "device = 3"),
            with("devices = 3", "devices = "),
            with("max_price = 0.20", "max_price = -0.20"),
            with("max_price = 0.20", "max_price = 1e9"),
            with("max_price = 0.20", "max_price = 99999999"),
            with("max_price = 0.20", "max_price = nan"),
            with("max_price = 0.20", ""),
            with("max_hours = 0.5", "max_hours = 0"),
            with("max_hours = 0.5", "max_hours = 1000"),
            with("max_hours = 0.5", "max_hours = -1"),
            with("name = \"digits\"", "name = \"Digits!\""),
            with("name = \"digits\"", "name = 5"),
            with("entry = \"python train.py\"", "entry = \"\""),
            with("model = \"cpu\"", "model = \"../h100\""),
            with("pack = \"ray-torch\"", ""),
            with("EPOCHS = 30", "EPOCHS = [1]"),
            with("checkpoints = true", "checkpoints = \"yes\""),
            with("[job]", "[jop]"),
            refused(""),
            refused("devices: 3"),
            refused("\u{0}\u{1}garbage"),
        ];
        expect![[r#"
            atoll.toml:5:11: devices `0` must be a whole number from 1 to 10000
            atoll.toml:5:11: devices `1_000_000_000` must be a whole number from 1 to 10000
            atoll.toml:5:11: devices `-2` must be a whole number from 1 to 10000
            atoll.toml:5:11: devices `three` must be a whole number from 1 to 10000
            atoll.toml:5:11: devices `2.5` must be a whole number from 1 to 10000
            atoll.toml:6:1: duplicate key; the file must be TOML, for example `devices = 3`
            atoll.toml:5:1: unknown field `device`, expected one of `name`, `entry`, `devices`, `model`, `pack`, `checkpoints`, `max_price`, `max_hours`, `env`
            atoll.toml:5:11: string values must be quoted, expected literal string; the file must be TOML, for example `devices = 3`
            atoll.toml:9:13: `-0.20` is not a price: write US dollars per device-hour, for example 0.05 or 2.20
            atoll.toml:9:13: `1e9` is not a price: write US dollars per device-hour, for example 0.05 or 2.20
            atoll.toml:9:13: a price of 99999999 USD per device-hour is out of range: it must be above 0 and at most 10000
            atoll.toml:9:13: `nan` is not a price: write US dollars per device-hour, for example 0.05 or 2.20
            no max_price: write `max_price = "0.20"` under [job] in atoll.toml, or add --max-price
            atoll.toml:10:13: max_hours `0` must be above 0 and at most 720, with at most 6 digits after the point, for example 0.5
            atoll.toml:10:13: max_hours `1000` must be above 0 and at most 720, with at most 6 digits after the point, for example 0.5
            atoll.toml:10:13: max_hours `-1` must be above 0 and at most 720, with at most 6 digits after the point, for example 0.5
            atoll.toml:3:8: name `Digits!` must be 1 to 64 lower-case letters, digits, `-` or `.`, and start with a letter or digit
            atoll.toml:3:8: invalid type: integer `5`, expected a string
            atoll.toml:4:9: entry must be a command line of 1 to 4096 bytes, for example "python train.py"
            atoll.toml:6:9: model `../h100` must be 1 to 64 lower-case letters, digits, `-` or `.`, and start with a letter or digit
            no pack: write `pack = "ray-torch"` under [job] in atoll.toml, or add --pack
            atoll.toml:12:10: `env.EPOCHS` must be text: put it in quotation marks
            atoll.toml:8:15: invalid type: string "yes", expected a boolean
            atoll.toml:2:2: unknown field `jop`, expected `job` or `env`
            atoll.toml:1:1: missing field `job`; an atoll.toml begins with the line [job]
            atoll.toml:1:10: key with no value, expected `=`; the file must be TOML, for example `devices = 3`
            atoll.toml:1:10: key with no value, expected `=`; the file must be TOML, for example `devices = 3`"#]].assert_eq(&all.join("\n"));
    }
}
