//! The forms of accounts and amounts: base58, base64, zstd, and JSON where a program is known. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use solana_account::{AccountSharedData, ReadableAccount as _};

use super::{Fault, View, parsed};
use crate::local::history::Returned;
use crate::local::state::from_svm;

/// Longest data that base58 is used for, as on Solana: its cost grows with the square.
const BASE58_BYTES_MAX: usize = 128;
/// Most content of one block of zstd.
const ZSTD_BLOCK_BYTES_MAX: usize = 128 << 10;

/// How bytes are written as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// Base58 alone, without its name: what Solana answers when nothing is asked for.
    Binary,
    Base58,
    Base64,
    Base64Zstd,
    JsonParsed,
}

/// How an account is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::local) struct AccountForm {
    pub(super) encoding: Encoding,
    /// Only these bytes of the data: from, and how many.
    slice: Option<(usize, usize)>,
}

impl AccountForm {
    /// The form that `config` asks for.
    pub(super) fn read(config: &Value, default: Encoding) -> Result<Self, Fault> {
        let encoding = match &config["encoding"] {
            Value::Null => default,
            Value::String(name) => encoding(name).ok_or_else(|| {
                Fault::params("Invalid params: encoding is base58, base64, base64+zstd or jsonParsed")
            })?,
            _ => return Err(Fault::params("Invalid params: encoding is a text")),
        };
        let slice = match &config["dataSlice"] {
            Value::Null => None,
            slice => {
                let number = |name: &str| slice[name].as_u64().and_then(|number| usize::try_from(number).ok());
                let slice = number("offset").zip(number("length"));
                Some(
                    slice
                        .ok_or_else(|| Fault::params("Invalid params: dataSlice is {\"offset\": n, \"length\": n}"))?,
                )
            }
        };
        Ok(Self { encoding, slice })
    }
}

fn encoding(name: &str) -> Option<Encoding> {
    Some(match name {
        "binary" => Encoding::Binary,
        "base58" => Encoding::Base58,
        "base64" => Encoding::Base64,
        "base64+zstd" => Encoding::Base64Zstd,
        "jsonParsed" => Encoding::JsonParsed,
        _ => return None,
    })
}

/// An account in Solana's form.
pub(in crate::local) fn account_json(
    form: AccountForm,
    account: &AccountSharedData,
    view: &View<'_>,
) -> Result<Value, Fault> {
    Ok(json!({
        "lamports": account.lamports(),
        "owner": from_svm(account.owner()),
        "data": data_json(form, account, view)?,
        "executable": account.executable(),
        "rentEpoch": account.rent_epoch(),
        "space": account.data().len(),
    }))
}

fn data_json(form: AccountForm, account: &AccountSharedData, view: &View<'_>) -> Result<Value, Fault> {
    if form.encoding == Encoding::JsonParsed
        && let Some(parsed) = parsed::account(account, view)
    {
        return Ok(parsed);
    }
    let whole = account.data();
    let data = form.slice.map_or(whole, |(offset, length)| {
        let from = offset.min(whole.len());
        &whole[from..offset.saturating_add(length).clamp(from, whole.len())]
    });
    if matches!(form.encoding, Encoding::Binary | Encoding::Base58) && data.len() > BASE58_BYTES_MAX {
        let why = "Encoded binary (base 58) data should be less than 128 bytes, please use Base64 encoding.";
        return Err(Fault::invalid(why.to_owned()));
    }
    Ok(match form.encoding {
        Encoding::Binary => json!(bs58::encode(data).into_string()),
        Encoding::Base58 => json!([bs58::encode(data).into_string(), "base58"]),
        Encoding::Base64 | Encoding::JsonParsed => json!([BASE64.encode(data), "base64"]),
        Encoding::Base64Zstd => json!([BASE64.encode(zstd(data)), "base64+zstd"]),
    })
}

/// A zstd frame of uncompressed blocks (RFC 8878, 3.1.1): what a client that asks for zstd can read, without a
/// compressor among the dependencies. Nothing is gained by compression between two processes of one machine.
fn zstd(data: &[u8]) -> Vec<u8> {
    const MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();
    // One segment, content size in eight bytes, no checksum, no dictionary.
    const DESCRIPTOR: u8 = 0b1110_0000;
    let mut frame = Vec::with_capacity(data.len() + 32);
    frame.extend(MAGIC);
    frame.push(DESCRIPTOR);
    frame.extend((data.len() as u64).to_le_bytes());
    let mut block = |content: &[u8], last: bool| {
        // Bit 0: the last block; bits 1 and 2: 0 for raw; then the length.
        let head = u32::try_from(content.len()).unwrap_or_default() << 3 | u32::from(last);
        frame.extend(&head.to_le_bytes()[..3]);
        frame.extend(content);
    };
    let mut rest = data;
    while rest.len() > ZSTD_BLOCK_BYTES_MAX {
        let (content, behind) = rest.split_at(ZSTD_BLOCK_BYTES_MAX);
        block(content, false);
        rest = behind;
    }
    block(rest, true);
    frame
}

/// A token amount in Solana's form.
pub(super) fn amount_json(amount: u64, decimals: u8) -> Value {
    let digits = format!("{amount:0>width$}", width = usize::from(decimals) + 1);
    let (whole, part) = digits.split_at(digits.len() - usize::from(decimals));
    let part = part.trim_end_matches('0');
    let text = if part.is_empty() { whole.to_owned() } else { format!("{whole}.{part}") };
    // A float, as Solana has it and warns against; the text is exact.
    let float: f64 = text.parse().unwrap_or_default();
    json!({ "amount": amount.to_string(), "decimals": decimals, "uiAmount": float, "uiAmountString": text })
}

/// What a program returned, in Solana's form.
pub(super) fn returned_json(returned: Option<&Returned>) -> Value {
    returned.map_or(
        Value::Null,
        |returned| json!({ "programId": returned.program, "data": [BASE64.encode(&returned.data), "base64"] }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_have_their_text_form() {
        let text = |amount, decimals| amount_json(amount, decimals)["uiAmountString"].as_str().unwrap().to_owned();
        assert_eq!(text(0, 9), "0");
        assert_eq!(text(1, 9), "0.000000001");
        assert_eq!(text(1_500_000_000, 9), "1.5");
        assert_eq!(text(u64::MAX, 0), u64::MAX.to_string());
        assert_eq!(text(7, 255).len(), 257);
        assert_eq!(amount_json(1_500_000_000, 9)["uiAmount"], json!(1.5));
    }

    #[test]
    fn zstd_frames_have_the_layout_of_the_rfc() {
        // The same bytes that `printf hello | zstd --no-check` gives, but for the size of the content's length.
        let hello = [&[0x28, 0xb5, 0x2f, 0xfd, 0xe0, 5, 0, 0, 0, 0, 0, 0, 0, 0x29, 0, 0][..], b"hello"].concat();
        assert_eq!(zstd(b"hello"), hello);
        assert_eq!(zstd(&[]).len(), 4 + 1 + 8 + 3);
        assert_eq!(zstd(&[7; ZSTD_BLOCK_BYTES_MAX]).len(), 4 + 1 + 8 + 3 + ZSTD_BLOCK_BYTES_MAX);
        assert_eq!(zstd(&[7; ZSTD_BLOCK_BYTES_MAX + 1]).len(), 4 + 1 + 8 + 6 + ZSTD_BLOCK_BYTES_MAX + 1);
    }
}
