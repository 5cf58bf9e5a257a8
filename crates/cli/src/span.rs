//! A length of time as it is typed: `90s`, `20m`, `36h`, `14d`.

use std::fmt;

/// The longest that is read: ten years, in seconds.
const SPAN_S_MAX: u32 = 3650 * 86_400;

/// A length of time, in whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub u32);

/// Text that is no length of time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a length of time: write a whole number above 0 with s, m, h or d, for example 14d")]
pub struct SpanError(String);

impl std::str::FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        let wrong = || SpanError(text.chars().take(40).collect());
        let unit = text.chars().last().ok_or_else(wrong)?;
        let seconds: u32 = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return Err(wrong()),
        };
        let count = &text[..text.len() - 1];
        if count.is_empty() || !count.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(wrong());
        }
        let span = count.parse::<u32>().ok().and_then(|count| count.checked_mul(seconds));
        span.filter(|span| (1..=SPAN_S_MAX).contains(span)).map(Self).ok_or_else(wrong)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::output::length(u64::from(self.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_exactly_or_not_at_all() {
        let read = |text: &str| text.parse::<Span>().ok().map(|span| span.0);
        assert_eq!([read("90s"), read("20m"), read("36h"), read("14d")], [90, 1200, 129_600, 1_209_600].map(Some));
        for bad in ["", "d", "0d", "14", "-1d", "+1d", "1.5d", "14 d", "3651d", "99999999999s", "14ü", "1w"] {
            assert_eq!(read(bad), None, "{bad}");
        }
        assert!("1e3d".parse::<Span>().unwrap_err().to_string().contains("for example 14d"));
    }
}
