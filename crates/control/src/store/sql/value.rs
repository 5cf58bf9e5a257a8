//! Values on their way into and out of a row, and the checks at that border.
//!
//! Both engines must take and refuse the same values, so the checks stand here and not in an engine: a zero byte in
//! text (PostgreSQL cannot hold it), a number beyond 63 bits, a key that does not fit an index.

use std::str::FromStr;

use atoll_domain::time::UnixMs;
use serde::de::value::StrDeserializer;
use serde::de::{DeserializeOwned, IntoDeserializer as _};
use serde::{Deserialize, Serialize};

use super::super::{Result, StoreError};

/// The longest text that may be a key of its own, in bytes. An index entry of PostgreSQL holds about 2,700.
const KEY_BYTES_MAX: usize = 255;

/// One value of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store) enum Value {
    Null,
    Int(i64),
    Text(String),
    Bytes(Vec<u8>),
}

/// A value that no engine is asked to store.
#[derive(Debug, thiserror::Error)]
enum Unfit {
    #[error("{what} is {value}: the store holds numbers below 2^63")]
    TooLarge { what: &'static str, value: u64 },
    #[error("a {what} must have 1 to {KEY_BYTES_MAX} bytes and no zero byte; this one has {bytes}")]
    Key { what: &'static str, bytes: usize },
    #[error("{what} cannot be written as JSON: {error}")]
    Json { what: &'static str, error: serde_json::Error },
}

impl From<Unfit> for StoreError {
    fn from(unfit: Unfit) -> Self {
        Self::Engine(Box::new(unfit))
    }
}

impl Value {
    /// An id, a key or a state in its text form.
    pub(super) fn shown(value: impl std::fmt::Display) -> Self {
        Self::Text(value.to_string())
    }

    /// Words for people. A zero byte, which PostgreSQL cannot hold, becomes the replacement character.
    pub(super) fn words(text: &str) -> Self {
        Self::Text(text.replace('\0', "\u{fffd}"))
    }

    /// Text that identifies a row.
    pub(super) fn key(what: &'static str, text: &str) -> Result<Self> {
        if text.is_empty() || text.len() > KEY_BYTES_MAX || text.contains('\0') {
            return Err(Unfit::Key { what, bytes: text.len() }.into());
        }
        Ok(Self::Text(text.to_owned()))
    }

    /// Raw bytes.
    pub(super) fn bytes(bytes: &[u8]) -> Self {
        Self::Bytes(bytes.to_vec())
    }

    /// A count or an amount.
    pub(super) fn int(what: &'static str, value: u64) -> Result<Self> {
        Ok(Self::Int(i64::try_from(value).map_err(|_| Unfit::TooLarge { what, value })?))
    }

    /// A number that always fits.
    pub(super) fn small(value: impl Into<i64>) -> Self {
        Self::Int(value.into())
    }

    /// A time; the end of time is 2^63 - 1 ms, some 292 million years ahead.
    pub(super) fn time(at: UnixMs) -> Self {
        Self::Int(i64::try_from(at.0).unwrap_or(i64::MAX))
    }

    /// A structured part.
    pub(super) fn json(what: &'static str, value: &impl Serialize) -> Result<Self> {
        Ok(Self::Text(serde_json::to_string(value).map_err(|error| Unfit::Json { what, error })?))
    }

    /// The value, or null.
    pub(super) fn or_null(value: Option<Self>) -> Self {
        value.unwrap_or(Self::Null)
    }
}

/// One row of an answer.
#[derive(Debug)]
pub(in crate::store) struct Row(pub(in crate::store) Vec<Value>);

impl Row {
    /// Reads the values from left to right.
    pub(super) fn read(self, what: &'static str) -> Reader {
        Reader { what, column: 0, values: self.0.into_iter() }
    }
}

/// Reads a row's values in order and refuses what does not fit.
#[derive(Debug)]
pub(super) struct Reader {
    what: &'static str,
    column: usize,
    values: std::vec::IntoIter<Value>,
}

impl Reader {
    pub(super) fn corrupt(&self, reason: impl std::fmt::Display) -> StoreError {
        StoreError::Corrupt { what: self.what, reason: format!("column {}: {reason}", self.column) }
    }

    fn next(&mut self) -> Result<Value> {
        self.column += 1;
        self.values.next().ok_or_else(|| self.corrupt("missing"))
    }

    pub(super) fn opt_signed(&mut self) -> Result<Option<i64>> {
        match self.next()? {
            Value::Null => Ok(None),
            Value::Int(value) => Ok(Some(value)),
            other => Err(self.corrupt(format!("expected a number, found {}", kind(&other)))),
        }
    }

    pub(super) fn opt_int<T: TryFrom<i64>>(&mut self) -> Result<Option<T>> {
        let Some(value) = self.opt_signed()? else { return Ok(None) };
        T::try_from(value).map(Some).map_err(|_| self.corrupt(format!("{value} is out of range")))
    }

    pub(super) fn int<T: TryFrom<i64>>(&mut self) -> Result<T> {
        self.opt_int()?.ok_or_else(|| self.corrupt("is empty"))
    }

    pub(super) fn opt_time(&mut self) -> Result<Option<UnixMs>> {
        Ok(self.opt_int()?.map(UnixMs))
    }

    pub(super) fn time(&mut self) -> Result<UnixMs> {
        self.int().map(UnixMs)
    }

    pub(super) fn opt_text(&mut self) -> Result<Option<String>> {
        match self.next()? {
            Value::Null => Ok(None),
            Value::Text(text) => Ok(Some(text)),
            other => Err(self.corrupt(format!("expected text, found {}", kind(&other)))),
        }
    }

    pub(super) fn text(&mut self) -> Result<String> {
        self.opt_text()?.ok_or_else(|| self.corrupt("is empty"))
    }

    pub(super) fn opt_bytes(&mut self) -> Result<Option<Vec<u8>>> {
        match self.next()? {
            Value::Null => Ok(None),
            Value::Bytes(bytes) => Ok(Some(bytes)),
            other => Err(self.corrupt(format!("expected bytes, found {}", kind(&other)))),
        }
    }

    pub(super) fn bytes(&mut self) -> Result<Vec<u8>> {
        self.opt_bytes()?.ok_or_else(|| self.corrupt("is empty"))
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let bytes = self.bytes()?;
        <[u8; N]>::try_from(bytes.as_slice())
            .map_err(|_| self.corrupt(format!("expected {N} bytes, found {}", bytes.len())))
    }

    /// An id in its text form.
    pub(super) fn opt_parsed<T: FromStr<Err: std::fmt::Display>>(&mut self) -> Result<Option<T>> {
        let Some(text) = self.opt_text()? else { return Ok(None) };
        text.parse().map(Some).map_err(|error| self.corrupt(error))
    }

    pub(super) fn parsed<T: FromStr<Err: std::fmt::Display>>(&mut self) -> Result<T> {
        self.opt_parsed()?.ok_or_else(|| self.corrupt("is empty"))
    }

    /// A state by its word.
    pub(super) fn word<T: for<'de> Deserialize<'de>>(&mut self) -> Result<T> {
        let text = self.text()?;
        let word: StrDeserializer<'_, serde::de::value::Error> = text.as_str().into_deserializer();
        T::deserialize(word).map_err(|error| self.corrupt(error))
    }

    pub(super) fn opt_json<T: DeserializeOwned>(&mut self) -> Result<Option<T>> {
        let Some(text) = self.opt_text()? else { return Ok(None) };
        serde_json::from_str(&text).map(Some).map_err(|error| self.corrupt(error))
    }

    pub(super) fn json<T: DeserializeOwned>(&mut self) -> Result<T> {
        self.opt_json()?.ok_or_else(|| self.corrupt("is empty"))
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Int(_) => "a number",
        Value::Text(_) => "text",
        Value::Bytes(_) => "bytes",
    }
}
