//! What may go wrong between a chain and who asks it, and what does: drawn from a seed, request by request. Pure.
//!
//! The same faults are for the simulation and, by `atoll_faults`, for a running local chain. They are switched on and
//! off at run time; the same seed and the same requests draw the same faults.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, de};

use super::engine::Finality;

/// Most slots that anything may be late, stale or rolled back by: a blockhash's life.
pub const FAULT_SLOTS_MAX: u64 = 150;
/// Longest wait for an answer.
const DELAY_MS_MAX: u64 = 10 * 60_000;
/// Longest halt: a year.
const HALT_MS_MAX: u64 = 366 * 24 * 3_600_000;
/// What a node answers behind a broken proxy, each as likely.
const UNAVAILABLE: [u16; 4] = [500, 502, 503, 504];
const TOO_MANY: u16 = 429;

/// So many of a thousand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize)]
pub struct Share(u16);

impl Share {
    /// Never.
    pub const NONE: Self = Self(0);
    /// Always.
    pub const ALL: Self = Self(1000);

    /// So many of a thousand; more than that is all.
    #[must_use]
    pub const fn of_thousand(share: u16) -> Self {
        Self(if share > 1000 { 1000 } else { share })
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let share = u16::deserialize(deserializer)?;
        if share > 1000 { Err(de::Error::custom("a share is 0 to 1000 of a thousand")) } else { Ok(Self(share)) }
    }
}

/// What goes wrong with requests, each kind with its share of them. Nothing by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Faults {
    /// Where all draws come from.
    pub seed: u64,
    /// The request never arrives.
    pub drop_request: Share,
    /// The request is done, and its answer never arrives.
    pub drop_answer: Share,
    /// Who sent a transaction hears nothing, and the transaction arrives later.
    pub late: Share,
    /// A transaction arrives a second time, later.
    pub duplicate: Share,
    /// How many slots later, at most, for both.
    pub late_slots_max: u64,
    /// The answer is on its way for long.
    pub delay: Share,
    /// For how long, at most, in milliseconds.
    pub delay_ms_max: u64,
    /// The answer comes from a node that lags behind.
    pub stale: Share,
    /// By how many slots, at most.
    pub stale_slots_max: u64,
    /// HTTP 429, and nothing is done.
    pub too_many: Share,
    /// HTTP 500, 502, 503 or 504, and nothing is done.
    pub unavailable: Share,
    /// Blockhashes are good for so many slots only, whatever their answer says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blockhash_slots: Option<u64>,
}

/// A fork that loses: the newest slots' transactions never were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RollBack {
    /// So many slots are abandoned, as far as they are not final.
    pub slots: u64,
    /// Which of their transactions are tried again on the other fork, up to eight slots later.
    #[serde(default)]
    pub land: Share,
}

/// A cluster that makes no blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Halt {
    /// For so long, in milliseconds of the wall clock.
    pub ms: u64,
    /// What happens to transactions that are sent meanwhile.
    #[serde(default)]
    pub sends: HaltSends,
    /// Which of those that were accepted are tried after the halt.
    #[serde(default)]
    pub land: Share,
}

/// What a node does with transactions while the cluster halts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HaltSends {
    /// It takes them and forwards them to nobody.
    #[default]
    Accept,
    /// It says that it is behind.
    Refuse,
    /// It does not answer.
    Hang,
}

/// The parameter of `atoll_faults`. What is absent stays as it is.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Order {
    /// Instead of those so far; `{}` ends them.
    pub faults: Option<Faults>,
    /// From now on.
    pub finality: Option<Finality>,
    /// Now.
    pub roll_back: Option<RollBack>,
    /// Now.
    pub halt: Option<Halt>,
}

impl Order {
    /// Why it is not done; none when it can be.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        let faults = self.faults.unwrap_or_default();
        let finality = self.finality.unwrap_or_default();
        let slots = [
            faults.late_slots_max,
            faults.stale_slots_max,
            faults.blockhash_slots.unwrap_or(0),
            finality.finalized_slots,
            self.roll_back.map_or(0, |roll_back| roll_back.slots),
        ];
        if slots.iter().any(|slots| *slots > FAULT_SLOTS_MAX) {
            return Some(format!("at most {FAULT_SLOTS_MAX} slots"));
        }
        if finality.confirmed_slots > finality.finalized_slots {
            return Some("what is final is confirmed: confirmedSlots is at most finalizedSlots".to_owned());
        }
        if faults.delay_ms_max > DELAY_MS_MAX {
            return Some(format!("an answer waits at most {DELAY_MS_MAX} ms"));
        }
        (self.halt.is_some_and(|halt| halt.ms > HALT_MS_MAX)).then(|| format!("a halt has at most {HALT_MS_MAX} ms"))
    }
}

/// What happens to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It never arrives.
    Lost,
    /// It is answered with this HTTP status, and not done.
    Refused(u16),
    /// Nobody answers, and it arrives so many slots later.
    Late { slots: u64 },
    /// It is done.
    Done(Done),
}

/// How a request is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Done {
    /// How far behind the node is that does it.
    pub(super) stale_slots: u64,
    /// So many slots later it arrives once more.
    pub(super) again_after_slots: Option<u64>,
    /// Its answer never arrives.
    pub(super) answer_lost: bool,
    /// How long the answer is on its way.
    pub(super) wait: Duration,
}

impl Faults {
    /// What happens to the next request. `sends` says whether it is a transaction, which alone can be late or doubled.
    pub(super) fn fate(&self, draw: &mut Draw, sends: bool) -> Fate {
        // Every request takes the same number of draws, so that one more share changes nothing in the others'.
        let lost = draw.hits(self.drop_request);
        let too_many = draw.hits(self.too_many);
        let unavailable = draw.hits(self.unavailable);
        let status = UNAVAILABLE[usize::try_from(draw.below(4)).unwrap_or(0)];
        let late = draw.hits(self.late);
        let again = draw.hits(self.duplicate);
        let later_slots = 1 + draw.below(self.late_slots_max);
        let answer_lost = draw.hits(self.drop_answer);
        let delayed = draw.hits(self.delay);
        let wait_ms = 1 + draw.below(self.delay_ms_max);
        let stale = draw.hits(self.stale);
        let stale_slots = 1 + draw.below(self.stale_slots_max);
        match () {
            () if lost => Fate::Lost,
            () if too_many => Fate::Refused(TOO_MANY),
            () if unavailable => Fate::Refused(status),
            () if late && sends => Fate::Late { slots: later_slots },
            () => Fate::Done(Done {
                stale_slots: if stale { stale_slots } else { 0 },
                again_after_slots: (again && sends).then_some(later_slots),
                answer_lost,
                wait: if delayed { Duration::from_millis(wait_ms) } else { Duration::ZERO },
            }),
        }
    }
}

/// A sequence that looks like chance and follows from its seed: `SplitMix64` (Steele, Lea, Flood 2014).
#[derive(Debug, Clone)]
pub(super) struct Draw(u64);

impl Draw {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`; 0 when there is none.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next().checked_rem(bound).unwrap_or(0)
    }

    /// Whether one of so many of a thousand is hit.
    pub(super) fn hits(&mut self, share: Share) -> bool {
        self.below(1000) < u64::from(share.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_faults_everything_is_done_and_with_all_nothing() {
        let mut draw = Draw::new(1);
        for _ in 0..1000 {
            assert_eq!(Faults::default().fate(&mut draw, true), Fate::Done(Done::default()));
            let all = Faults { drop_request: Share::ALL, ..Faults::default() };
            assert_eq!(all.fate(&mut draw, false), Fate::Lost);
        }
    }

    #[test]
    fn shares_are_met_seeds_repeat_and_reads_are_neither_late_nor_doubled() {
        let faults = Faults {
            seed: 9,
            drop_request: Share::of_thousand(100),
            drop_answer: Share::of_thousand(200),
            late: Share::of_thousand(50),
            duplicate: Share::of_thousand(300),
            late_slots_max: 8,
            delay: Share::of_thousand(500),
            delay_ms_max: 2000,
            stale: Share::of_thousand(250),
            stale_slots_max: 5,
            too_many: Share::of_thousand(20),
            unavailable: Share::of_thousand(20),
            blockhash_slots: None,
        };
        let run = |sends: bool| {
            let mut draw = Draw::new(faults.seed);
            (0..20_000).map(|_| faults.fate(&mut draw, sends)).collect::<Vec<_>>()
        };
        let fates = run(true);
        assert_eq!(fates, run(true));
        let share = |of: fn(&Fate) -> bool| fates.iter().filter(|fate| of(fate)).count() / 20;
        let near = |share: usize, expected: usize| assert!(share.abs_diff(expected) <= expected / 5 + 3, "{share}");
        near(share(|fate| *fate == Fate::Lost), 100);
        near(share(|fate| matches!(fate, Fate::Refused(429))), 18);
        near(share(|fate| matches!(fate, Fate::Refused(500..))), 18);
        near(share(|fate| matches!(fate, Fate::Late { slots: 1..=8 })), 43);
        near(share(|fate| matches!(fate, Fate::Done(done) if done.answer_lost)), 164);
        near(share(|fate| matches!(fate, Fate::Done(done) if done.again_after_slots.is_some())), 246);
        near(share(|fate| matches!(fate, Fate::Done(done) if (1..=2000).contains(&done.wait.as_millis()))), 410);
        near(share(|fate| matches!(fate, Fate::Done(done) if (1..=5).contains(&done.stale_slots))), 205);
        assert!(run(false).iter().all(|fate| match fate {
            Fate::Late { .. } => false,
            Fate::Done(done) => done.again_after_slots.is_none(),
            _ => true,
        }));
    }

    #[test]
    fn orders_have_bounds_and_unknown_words_are_refused() {
        let read = |text: &str| serde_json::from_str::<Order>(text);
        assert!(
            read(r#"{"faults":{"seed":4,"dropAnswer":50},"halt":{"ms":1000,"sends":"hang"}}"#)
                .unwrap()
                .refusal()
                .is_none()
        );
        for wrong in [r#"{"fault":{}}"#, r#"{"faults":{"dropAnswer":1001}}"#, r#"{"faults":{"dropAnswers":1}}"#] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        for wrong in [
            r#"{"rollBack":{"slots":151}}"#,
            r#"{"faults":{"staleSlotsMax":151}}"#,
            r#"{"faults":{"delayMsMax":600001}}"#,
            r#"{"halt":{"ms":99999999999}}"#,
            r#"{"finality":{"confirmedSlots":3,"finalizedSlots":2}}"#,
        ] {
            assert!(read(wrong).unwrap().refusal().is_some(), "{wrong}");
        }
    }
}
