//! Encoding of instruction data: fields in order, integers little-endian, lists behind a u16 count.

use crate::{Address, Error, Hash};

/// Room for one instruction's data: the whole of a Solana transaction, 1,232 bytes. What does not fit is cut by nobody:
/// encoding refuses it.
pub(crate) const DATA_LEN_MAX: usize = 1232;

/// The encoded data of one instruction.
#[derive(Clone, Debug)]
pub struct Data {
    bytes: [u8; DATA_LEN_MAX],
    len: usize,
}

impl Data {
    pub(crate) const fn new() -> Self {
        Self { bytes: [0; DATA_LEN_MAX], len: 0 }
    }

    /// The bytes to put into the instruction.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let end = self.len + bytes.len();
        let room = self.bytes.get_mut(self.len..end).ok_or(Error::InstructionMalformed)?;
        room.copy_from_slice(bytes);
        self.len = end;
        Ok(())
    }
}

impl AsRef<[u8]> for Data {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

/// One field of an instruction.
pub trait Wire<'a>: Sized {
    /// Appends the field.
    ///
    /// # Errors
    /// [`Error::InstructionMalformed`] when it does not fit.
    fn put(&self, data: &mut Data) -> Result<(), Error>;

    /// Takes the field off the front of `bytes`.
    ///
    /// # Errors
    /// [`Error::InstructionMalformed`] when the bytes end too early.
    fn take(bytes: &mut &'a [u8]) -> Result<Self, Error>;
}

fn take_len<'a>(bytes: &mut &'a [u8], len: usize) -> Result<&'a [u8], Error> {
    let (front, rest) = bytes.split_at_checked(len).ok_or(Error::InstructionMalformed)?;
    *bytes = rest;
    Ok(front)
}

fn take_array<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], Error> {
    let (front, rest) = bytes.split_first_chunk::<N>().ok_or(Error::InstructionMalformed)?;
    *bytes = rest;
    Ok(*front)
}

macro_rules! wire_integers {
    ($($integer:ty),*) => {$(
        impl Wire<'_> for $integer {
            fn put(&self, data: &mut Data) -> Result<(), Error> {
                data.push(&self.to_le_bytes())
            }
            fn take(bytes: &mut &[u8]) -> Result<Self, Error> {
                Ok(<$integer>::from_le_bytes(take_array(bytes)?))
            }
        }
    )*};
}

wire_integers!(u8, u16, u32, u64, i64);

impl<const N: usize> Wire<'_> for [u8; N] {
    fn put(&self, data: &mut Data) -> Result<(), Error> {
        data.push(self)
    }
    fn take(bytes: &mut &[u8]) -> Result<Self, Error> {
        take_array(bytes)
    }
}

impl Wire<'_> for [u16; 4] {
    fn put(&self, data: &mut Data) -> Result<(), Error> {
        self.iter().try_for_each(|number| number.put(data))
    }
    fn take(bytes: &mut &[u8]) -> Result<Self, Error> {
        Ok([u16::take(bytes)?, u16::take(bytes)?, u16::take(bytes)?, u16::take(bytes)?])
    }
}

impl Wire<'_> for [Address; 3] {
    fn put(&self, data: &mut Data) -> Result<(), Error> {
        data.push(self.as_flattened())
    }
    fn take(bytes: &mut &[u8]) -> Result<Self, Error> {
        Ok([take_array(bytes)?, take_array(bytes)?, take_array(bytes)?])
    }
}

fn put_len(len: usize, data: &mut Data) -> Result<(), Error> {
    u16::try_from(len).map_err(|_| Error::InstructionMalformed)?.put(data)
}

impl<'a> Wire<'a> for &'a [u8] {
    fn put(&self, data: &mut Data) -> Result<(), Error> {
        put_len(self.len(), data)?;
        data.push(self)
    }
    fn take(bytes: &mut &'a [u8]) -> Result<Self, Error> {
        let len = u16::take(bytes)?;
        take_len(bytes, usize::from(len))
    }
}

impl<'a, const N: usize> Wire<'a> for &'a [[u8; N]] {
    fn put(&self, data: &mut Data) -> Result<(), Error> {
        put_len(self.len(), data)?;
        data.push(self.as_flattened())
    }
    fn take(bytes: &mut &'a [u8]) -> Result<Self, Error> {
        let len = usize::from(u16::take(bytes)?);
        let (items, _) = take_len(bytes, len * N)?.as_chunks::<N>();
        Ok(items)
    }
}

/// The siblings of a Merkle path, from the leaf up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hashes<'a>(&'a [Hash]);

impl<'a> Hashes<'a> {
    /// Wraps a list of hashes.
    #[must_use]
    pub const fn new(hashes: &'a [Hash]) -> Self {
        Self(hashes)
    }

    /// How many there are.
    #[must_use]
    pub const fn len(self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// The hashes in order.
    pub fn iter(self) -> core::slice::Iter<'a, Hash> {
        self.0.iter()
    }
}

impl<'a> Wire<'a> for Hashes<'a> {
    fn put(&self, data: &mut Data) -> Result<(), Error> {
        self.0.put(data)
    }
    fn take(bytes: &mut &'a [u8]) -> Result<Self, Error> {
        Ok(Self(<&'a [Hash]>::take(bytes)?))
    }
}
