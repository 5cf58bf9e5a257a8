//! Fuzzing that runs in `cargo test` on the stable toolchain. For tests alone: no crate depends on it otherwise.
//!
//! A test names valid inputs, and says what must hold for *any* bytes. [`Fuzz::run`] first gives it those inputs, then
//! mutations of them ([`mutate`]) until its time is over. An input that makes it panic, allocate without bound
//! ([`memory`]) or not come back is made small, written to a file and shown, with the command that runs it again. What was
//! found once is kept as one more `seed` of its test.
//!
//! Why not a crate: proptest builds values, and a parser's worst inputs are not values; arbtest and bolero's engine on
//! stable draw random bytes, which a checksum or a length refuses at once, know nothing of the valid inputs at hand, and
//! watch neither memory nor time. Engines with coverage need a nightly compiler for their sanitizers. So this is a
//! mutator over valid inputs with no dependency; its price is that it is led by seeds and not by coverage: a target is
//! as good as its seeds, and should count what it accepts (`accepted` in the tests).
//!
//! - `ATOLL_FUZZ_MS=60000`: milliseconds for each target instead of one second; `cargo xtask test --long` sets it.
//! - `ATOLL_FUZZ_SEED=7`: other mutations. The same seed gives the same inputs in the same order.
//! - `ATOLL_FUZZ_INPUT=FILE`: that input alone.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod memory;
pub mod mutate;

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{Duration, Instant};

pub use mutate::Rng;

/// For each target in an ordinary run.
const RUN_MS: u64 = 1000;
/// Inputs for each target however slow the machine is, so that what a test expects of its tally does not hang on time.
const INPUTS_MIN: u64 = 500;
/// One input that takes longer than this has hung: a hundred thousand times what a parser takes.
const INPUT_MAX: Duration = Duration::from_secs(20);
/// Bytes of a failing input that are shown.
const SHOWN_MAX: usize = 512;
/// How long a failing input is made smaller.
const SHRINK_MAX: Duration = Duration::from_secs(5);

/// One target: its valid inputs and its bounds.
#[derive(Debug)]
pub struct Fuzz {
    name: &'static str,
    seeds: Vec<Vec<u8>>,
    words: Vec<Vec<u8>>,
    bytes_max: usize,
    memory: (usize, usize),
    inputs_min: u64,
    inputs_max: u64,
}

/// What became of the inputs.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many were given to the target.
    pub inputs: u64,
    /// How many of them gave each answer.
    pub answers: BTreeMap<&'static str, u64>,
}

impl Tally {
    /// How many inputs gave this answer.
    #[must_use]
    pub fn of(&self, answer: &str) -> u64 {
        self.answers.get(answer).copied().unwrap_or_default()
    }
}

impl Fuzz {
    /// A target by its name, with inputs of at most 4 KiB and 64 KiB + 64 bytes of memory per byte of input.
    #[must_use]
    pub const fn of(name: &'static str) -> Self {
        Self {
            name,
            seeds: Vec::new(),
            words: Vec::new(),
            bytes_max: 4 << 10,
            memory: (64 << 10, 64),
            inputs_min: INPUTS_MIN,
            inputs_max: u64::MAX,
        }
    }

    /// A valid input, or one that was a fault once.
    #[must_use]
    pub fn seed(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.seeds.push(input.into());
        self
    }

    /// Words that mutations put in: names of fields, signs, numbers of the format.
    #[must_use]
    pub fn words(mut self, words: &[&str]) -> Self {
        self.words.extend(words.iter().map(|word| word.as_bytes().to_vec()));
        self
    }

    /// The longest mutated input.
    #[must_use]
    pub const fn bytes_max(mut self, bytes_max: usize) -> Self {
        self.bytes_max = bytes_max;
        self
    }

    /// The most that may be allocated at once: `fixed` and `each` for each byte of the input. Only looked at where the
    /// test's binary has [`memory::Counting`] as its allocator.
    #[must_use]
    pub const fn memory(mut self, fixed: usize, each: usize) -> Self {
        self.memory = (fixed, each);
        self
    }

    /// The fewest inputs, instead of 500.
    #[must_use]
    pub const fn inputs_min(mut self, inputs_min: u64) -> Self {
        self.inputs_min = inputs_min;
        self
    }

    /// The most inputs, for targets whose each input is slow, in an ordinary run.
    #[must_use]
    pub const fn inputs_max(mut self, inputs_max: u64) -> Self {
        self.inputs_max = inputs_max;
        self
    }

    /// Gives the target its seeds and then mutations of them. It answers with a word of what it did, which is counted.
    ///
    /// # Panics
    /// When the target panics on an input, or allocates more than its bound. One that hangs aborts the process.
    pub fn run(self, target: impl Fn(&[u8]) -> &'static str) -> Tally {
        let mut tally = Tally::default();
        if let Some(path) = std::env::var_os("ATOLL_FUZZ_INPUT") {
            let input = std::fs::read(&path).expect("ATOLL_FUZZ_INPUT names a file");
            self.give(&target, &input, &mut tally);
            return tally;
        }
        let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a whole number"));
        let long = number("ATOLL_FUZZ_MS");
        let run = Duration::from_millis(long.unwrap_or(RUN_MS));
        let inputs_max = if long.is_some() { u64::MAX } else { self.inputs_max };
        let seed = number("ATOLL_FUZZ_SEED").unwrap_or_default();
        let watch = Watch::start(self.name);
        for input in &self.seeds {
            watch.begins(input);
            self.give(&target, input, &mut tally);
        }
        let started = Instant::now();
        let mut rng = Rng::new(seed);
        while tally.inputs < inputs_max && (tally.inputs < self.inputs_min || started.elapsed() < run) {
            let input = mutate::mutated(&mut rng, &self.seeds, &self.words, self.bytes_max);
            watch.begins(&input);
            self.give(&target, &input, &mut tally);
        }
        println!("{}: seed {seed}, {} inputs: {:?}", self.name, tally.inputs, tally.answers);
        tally
    }

    fn give(&self, target: &impl Fn(&[u8]) -> &'static str, input: &[u8], tally: &mut Tally) {
        match self.attempt(target, input) {
            Ok(answer) => {
                tally.inputs += 1;
                *tally.answers.entry(answer).or_default() += 1;
            }
            Err(why) => self.fail(target, input, &why, tally.inputs),
        }
    }

    /// What the target answered, or how it broke.
    fn attempt(&self, target: &impl Fn(&[u8]) -> &'static str, input: &[u8]) -> Result<&'static str, String> {
        let before = memory::begin();
        let answer = catch_unwind(AssertUnwindSafe(|| target(input)));
        let held = memory::most_since(before);
        let answer = answer.map_err(|panic| words(&*panic))?;
        let most = self.memory.0 + self.memory.1 * input.len();
        if held > most {
            return Err(format!(
                "{held} bytes were allocated at once; at most {most} may be for {} bytes",
                input.len()
            ));
        }
        Ok(answer)
    }

    fn fail(&self, target: &impl Fn(&[u8]) -> &'static str, input: &[u8], why: &str, number: u64) -> ! {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let small = mutate::shrunk(input, SHRINK_MAX, |input| self.attempt(target, input).is_err());
        std::panic::set_hook(hook);
        let path = keep(self.name, &small);
        panic!(
            "{}: input {number} broke it: {why}\n  made small: {}\n  again: ATOLL_FUZZ_INPUT={} cargo test ...",
            self.name,
            shown(&small),
            path.display()
        );
    }
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without words").to_owned()
}

/// The first bytes of an input as a byte string.
fn shown(input: &[u8]) -> String {
    let rest =
        if input.len() > SHOWN_MAX { format!(" and {} more bytes", input.len() - SHOWN_MAX) } else { String::new() };
    format!("b\"{}\"{rest}", input[..input.len().min(SHOWN_MAX)].escape_ascii())
}

fn keep(name: &str, input: &[u8]) -> PathBuf {
    let path = std::env::temp_dir().join(format!("atoll-fuzz-{name}"));
    // The input is shown as well: a full disk hides nothing.
    let _ = std::fs::write(&path, input);
    path
}

/// Aborts the process when one input does not come back.
struct Watch(mpsc::Sender<Vec<u8>>);

impl Watch {
    fn start(name: &'static str) -> Self {
        let (begins, inputs) = mpsc::channel::<Vec<u8>>();
        std::thread::spawn(move || {
            let mut last = Vec::new();
            loop {
                match inputs.recv_timeout(INPUT_MAX) {
                    Ok(input) => last = input,
                    Err(mpsc::RecvTimeoutError::Disconnected) => return,
                    Err(mpsc::RecvTimeoutError::Timeout) => {
                        let path = keep(name, &last);
                        eprintln!("{name}: no answer within {INPUT_MAX:?} to {} ({})", shown(&last), path.display());
                        std::process::abort();
                    }
                }
            }
        });
        Self(begins)
    }

    fn begins(&self, input: &[u8]) {
        // The thread lives as long as the sender.
        let _ = self.0.send(input.to_vec());
    }
}

/// Choices out of an input, for targets that take steps and not bytes. An input that is used up gives zeros.
#[derive(Clone, Debug)]
pub struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    /// The choices of these bytes.
    #[must_use]
    pub const fn new(input: &'a [u8]) -> Self {
        Self(input)
    }

    /// Whether none is left.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// A number below `end`, which is at most 256; 0 when `end` is 0.
    pub fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()).checked_rem(end).unwrap_or_default()
    }

    /// The next bytes, at most so many.
    pub fn bytes(&mut self, most: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(most.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// The next eight bytes as a number.
    pub fn number(&mut self) -> u64 {
        let mut bytes = [0; 8];
        let taken = self.bytes(8);
        bytes[..taken.len()].copy_from_slice(taken);
        u64::from_le_bytes(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_panics_is_found_and_made_small() {
        let found = catch_unwind(|| {
            Fuzz::of("needle").seed("a long valid input with a b in it").run(|input| {
                assert!(!input.windows(2).any(|two| two == b"bb"), "two of them");
                "fine"
            })
        });
        let text = words(&*found.unwrap_err());
        assert!(text.contains("two of them") && text.contains("made small: b\"bb\""), "{text}");
    }

    #[test]
    fn the_same_seed_gives_the_same_inputs() {
        let seeds = vec![b"{\"a\": 17}".to_vec(), vec![0, 1, 2, 3]];
        let run = |seed| {
            let mut rng = Rng::new(seed);
            (0..200).map(|_| mutate::mutated(&mut rng, &seeds, &[], 64)).collect::<Vec<_>>()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
        assert!(run(1).iter().all(|input| input.len() <= 64));
    }

    #[test]
    fn choices_end_in_zeros() {
        let mut choices = Choices::new(&[5, 1]);
        assert_eq!((choices.below(3), choices.number(), choices.byte()), (2, 1, 0));
        assert!(choices.is_over());
    }
}
