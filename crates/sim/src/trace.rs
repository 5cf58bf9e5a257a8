//! What happened: a hash over every event, and a timeline of those that people want to read.
//!
//! Two runs of one seed must have one hash. Everything that any part of the world does goes into it: each piece of data
//! that a stream delivers, each call of the chain, each write to a disk, each fault.

use std::sync::{Arc, Mutex, PoisonError};

use crate::clock::TrueTime;

/// The record of a world. Clones are the same.
#[derive(Clone, Debug)]
pub struct Trace(Arc<Mutex<Record>>);

#[derive(Debug)]
struct Record {
    time: TrueTime,
    hash: u64,
    events: u64,
    timeline: Vec<String>,
    how: Telling,
    /// Where every event is written, to find the first one in which two runs differ.
    file: Option<std::io::BufWriter<std::fs::File>>,
}

/// How much of a record is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Telling {
    /// Prints the timeline as it grows.
    pub aloud: bool,
    /// A file for every event, a line each.
    pub events: Option<std::path::PathBuf>,
}

impl Trace {
    /// An empty record.
    ///
    /// # Panics
    /// When the file for events cannot be made.
    #[must_use]
    pub fn new(time: &TrueTime, how: Telling) -> Self {
        let file = how
            .events
            .as_ref()
            .map(|path| std::io::BufWriter::new(std::fs::File::create(path).expect("the file for events can be made")));
        let (time, hash) = (time.clone(), 0x1234_5678_9abc_def0);
        Self(Arc::new(Mutex::new(Record { time, hash, events: 0, timeline: Vec::new(), how, file })))
    }

    fn with<T>(&self, change: impl FnOnce(&mut Record) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// An event for the hash alone: where, and what in numbers.
    pub fn event(&self, place: &str, what: &[u8]) {
        self.with(|record| record.take(place, what));
    }

    /// An event that people read.
    pub fn line(&self, who: &str, what: &str) {
        self.with(|record| {
            record.take(who, what.as_bytes());
            let ms = record.time.elapsed().as_millis();
            let line = format!("{:>4}.{:03} s  {who:<10}  {what}", ms / 1000, ms % 1000);
            if record.how.aloud {
                println!("{line}");
            }
            record.timeline.push(line);
        });
    }

    /// The hash so far.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.with(|record| record.hash)
    }

    /// The number of events so far.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.with(|record| record.events)
    }

    /// The lines so far.
    #[must_use]
    pub fn timeline(&self) -> Vec<String> {
        self.with(|record| record.timeline.clone())
    }
}

impl Record {
    fn take(&mut self, place: &str, what: &[u8]) {
        self.events += 1;
        if let Some(file) = &mut self.file {
            use std::io::Write as _;
            let text: String =
                what.iter().take(600).flat_map(|byte| std::ascii::escape_default(*byte)).map(char::from).collect();
            let written = writeln!(file, "{:?} {place} {text}", self.time.elapsed());
            written.expect("the file for events can be written");
        }
        let at = u64::try_from(self.time.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.mix(at);
        for bytes in [place.as_bytes(), what] {
            self.mix(bytes.len() as u64);
            for chunk in bytes.chunks(8) {
                let mut word = [0; 8];
                word[..chunk.len()].copy_from_slice(chunk);
                self.mix(u64::from_le_bytes(word));
            }
        }
    }

    /// Multiply and rotate: not cryptographic, any change shows.
    fn mix(&mut self, word: u64) {
        self.hash = (self.hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        self.hash ^= self.hash >> 32;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_hash_sees_order_place_time_and_content() {
        let time = TrueTime::begin();
        let of = |events: &[(&str, &str)]| {
            let trace = Trace::new(&time, Telling::default());
            events.iter().for_each(|(place, what)| trace.line(place, what));
            trace.hash()
        };
        let base = of(&[("a", "x"), ("b", "y")]);
        assert_eq!(base, of(&[("a", "x"), ("b", "y")]));
        for other in [of(&[("b", "y"), ("a", "x")]), of(&[("a", "xb"), ("", "y")]), of(&[("a", "x"), ("b", "z")])] {
            assert_ne!(base, other);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_ne!(base, of(&[("a", "x"), ("b", "y")]));
    }
}
