//! Transactions: compiling, signing and decoding, pure.
//!
//! This is Solana's legacy transaction format, frozen since 2020: the one form that every cluster accepts and that needs
//! no lookup table. It is written here in full because the format is some hundred lines, while the component crates that
//! hold it bring 40 further crates (two `rand`, two `sha2`, two `syn`) into every supplier's build. A test under feature
//! `local` compares the bytes with `solana-transaction`'s own decoder, and litesvm verifies each transaction sent there.
//!
//! Not here: versioned transactions, lookup tables, durable nonces.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::address::{Address, Hash, Signature};
use crate::keypair::Keypair;

/// Most bytes of a signed transaction: 1,280 (the least IPv6 MTU) less 48 of headers.
pub const TRANSACTION_BYTES_MAX: usize = 1232;

/// One account that an instruction names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccountMeta {
    /// The account.
    pub address: Address,
    /// Whether its key must sign.
    pub signer: bool,
    /// Whether the instruction may change it.
    pub writable: bool,
}

impl AccountMeta {
    /// An account that is only read.
    #[must_use]
    pub const fn read(address: Address) -> Self {
        Self { address, signer: false, writable: false }
    }

    /// An account that is changed.
    #[must_use]
    pub const fn write(address: Address) -> Self {
        Self { address, signer: false, writable: true }
    }

    /// A signer whose account is only read.
    #[must_use]
    pub const fn sign(address: Address) -> Self {
        Self { address, signer: true, writable: false }
    }

    /// A signer whose account is changed, as whoever pays rent is.
    #[must_use]
    pub const fn sign_write(address: Address) -> Self {
        Self { address, signer: true, writable: true }
    }
}

/// One call of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instruction {
    /// The program called.
    pub program: Address,
    /// The accounts it is given, in the program's order.
    pub accounts: Vec<AccountMeta>,
    /// Its arguments.
    pub data: Vec<u8>,
}

/// A transaction with all its signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedTransaction {
    bytes: Vec<u8>,
    signature: Signature,
}

/// What a signed transaction says. Every signature in it has been verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// The signatures; the first is the fee payer's and names the transaction.
    pub signatures: Vec<Signature>,
    /// All accounts: signers first, the fee payer at their head.
    pub accounts: Vec<AccountMeta>,
    /// The blockhash that bounds the transaction's life.
    pub blockhash: Hash,
    /// The instructions with their accounts filled in.
    pub instructions: Vec<Instruction>,
}

/// Why instructions cannot become a transaction.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// More bytes than one packet takes.
    #[error("the transaction has {bytes} bytes and the chain takes {TRANSACTION_BYTES_MAX}: split it into several")]
    TooLarge { bytes: usize },
    /// A key that an instruction wants to see signing was not given.
    #[error("the key {address} must sign this transaction and was not given")]
    MissingSigner { address: Address },
    /// A key was given that no instruction asks for.
    #[error("the key {address} was given but nothing in the transaction asks for its signature")]
    UnusedSigner { address: Address },
    /// More accounts than an index byte can name.
    #[error("the transaction names {accounts} accounts, and 256 is the most: split it into several")]
    TooManyAccounts { accounts: usize },
}

/// Why bytes are not a transaction that somebody signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// More bytes than a transaction can have.
    #[error("a transaction has at most {TRANSACTION_BYTES_MAX} bytes, these are {bytes}")]
    TooLarge { bytes: usize },
    /// The bytes end early, go on too long, or point outside themselves.
    #[error("not a Solana transaction: {what}")]
    Malformed { what: &'static str },
    /// A versioned message; Atoll signs legacy messages only.
    #[error("a versioned transaction (version {version}); only legacy transactions are read here")]
    Versioned { version: u8 },
    /// A signature is not its key's.
    #[error("the signature of {address} does not match the transaction: it was changed after signing, or never signed")]
    BadSignature { address: Address },
}

/// Compiles and signs a transaction. `payer` pays the fee; `signers` are the other keys, in any order.
///
/// # Errors
/// [`BuildError`] when a signer is missing or superfluous, or the result is over 1,232 bytes.
pub fn sign(
    instructions: &[Instruction],
    payer: &Keypair,
    signers: &[&Keypair],
    blockhash: &Hash,
) -> Result<SignedTransaction, BuildError> {
    let accounts = account_table(instructions, payer.address());
    if accounts.len() > 256 {
        return Err(BuildError::TooManyAccounts { accounts: accounts.len() });
    }
    let message = message_bytes(instructions, &accounts, blockhash);
    let keys: Vec<&Keypair> = std::iter::once(payer).chain(signers.iter().copied()).collect();
    let wanted: Vec<Address> = accounts.iter().filter(|meta| meta.signer).map(|meta| meta.address).collect();
    if let Some(unused) = keys.iter().map(|key| key.address()).find(|address| !wanted.contains(address)) {
        return Err(BuildError::UnusedSigner { address: unused });
    }
    let mut bytes = Vec::with_capacity(TRANSACTION_BYTES_MAX);
    put_len(&mut bytes, wanted.len());
    let mut first = None;
    for address in &wanted {
        let key = keys.iter().find(|key| key.address() == *address);
        let signature = key.ok_or(BuildError::MissingSigner { address: *address })?.sign(&message);
        first.get_or_insert(signature);
        bytes.extend_from_slice(&signature.0);
    }
    bytes.extend_from_slice(&message);
    if bytes.len() > TRANSACTION_BYTES_MAX {
        return Err(BuildError::TooLarge { bytes: bytes.len() });
    }
    let signature = first.expect("the payer is always among the signers");
    Ok(SignedTransaction { bytes, signature })
}

impl SignedTransaction {
    /// Takes signed bytes from elsewhere, for example from a client that asks for them to be relayed.
    ///
    /// # Errors
    /// [`DecodeError`] as [`decode`].
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, DecodeError> {
        let signature = decode(&bytes)?.signatures[0];
        Ok(Self { bytes, signature })
    }

    /// The name under which the chain knows it.
    #[must_use]
    pub const fn signature(&self) -> Signature {
        self.signature
    }

    /// The bytes as the chain takes them.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes in base64, as JSON-RPC takes them.
    #[must_use]
    pub fn to_base64(&self) -> String {
        BASE64.encode(&self.bytes)
    }

    /// What it says.
    #[must_use]
    pub fn decoded(&self) -> Decoded {
        decode(&self.bytes).expect("both constructors only keep bytes that decode")
    }
}

/// Reads a signed transaction and verifies every signature, offline.
///
/// # Errors
/// [`DecodeError`] when the bytes are too many, malformed, versioned, or a signature does not verify.
pub fn decode(bytes: &[u8]) -> Result<Decoded, DecodeError> {
    if bytes.len() > TRANSACTION_BYTES_MAX {
        return Err(DecodeError::TooLarge { bytes: bytes.len() });
    }
    let mut reader = Reader { rest: bytes };
    let signatures =
        (0..reader.len()?).map(|_| reader.array().map(Signature)).collect::<Result<Vec<_>, DecodeError>>()?;
    let message = reader.rest;
    let accounts = read_accounts(&mut reader, signatures.len())?;
    let blockhash = Hash(reader.array()?);
    let instructions = (0..reader.len()?)
        .map(|_| read_instruction(&mut reader, &accounts))
        .collect::<Result<Vec<_>, DecodeError>>()?;
    if !reader.rest.is_empty() {
        return Err(DecodeError::Malformed { what: "bytes after its end" });
    }
    for (account, signature) in accounts.iter().zip(&signatures) {
        if !account.address.verifies(message, signature) {
            return Err(DecodeError::BadSignature { address: account.address });
        }
    }
    Ok(Decoded { signatures, accounts, blockhash, instructions })
}

/// All accounts once, with the strongest rights any instruction asks for, in the order that the header describes:
/// signers that write, signers that read, others that write, others that read.
fn account_table(instructions: &[Instruction], payer: Address) -> Vec<AccountMeta> {
    let mut table = vec![AccountMeta::sign_write(payer)];
    let programs = instructions.iter().map(|instruction| AccountMeta::read(instruction.program));
    let named = instructions.iter().flat_map(|instruction| instruction.accounts.iter().copied());
    for meta in named.chain(programs) {
        match table.iter_mut().find(|known| known.address == meta.address) {
            Some(known) => {
                known.signer |= meta.signer;
                known.writable |= meta.writable;
            }
            None => table.push(meta),
        }
    }
    // Stable, and the payer is already the first of the first group.
    table.sort_by_key(|meta| (!meta.signer, !meta.writable));
    table
}

fn message_bytes(instructions: &[Instruction], accounts: &[AccountMeta], blockhash: &Hash) -> Vec<u8> {
    let count = |wanted: fn(&AccountMeta) -> bool| index_byte(accounts.iter().filter(|meta| wanted(meta)).count());
    let index =
        |address: &Address| index_byte(accounts.iter().position(|meta| meta.address == *address).unwrap_or(usize::MAX));
    let mut bytes = vec![
        count(|meta| meta.signer),
        count(|meta| meta.signer && !meta.writable),
        count(|meta| !meta.signer && !meta.writable),
    ];
    put_len(&mut bytes, accounts.len());
    for meta in accounts {
        bytes.extend_from_slice(&meta.address.0);
    }
    bytes.extend_from_slice(&blockhash.0);
    put_len(&mut bytes, instructions.len());
    for instruction in instructions {
        bytes.push(index(&instruction.program));
        put_len(&mut bytes, instruction.accounts.len());
        bytes.extend(instruction.accounts.iter().map(|meta| index(&meta.address)));
        put_len(&mut bytes, instruction.data.len());
        bytes.extend_from_slice(&instruction.data);
    }
    bytes
}

/// An index or count in one byte. `sign` has refused tables over 256 accounts, and 256 signers exceed the size limit.
fn index_byte(index: usize) -> u8 {
    u8::try_from(index).unwrap_or(u8::MAX)
}

/// Solana's compact-u16: seven bits a byte, low bits first, the high bit says that more follow.
fn put_len(bytes: &mut Vec<u8>, len: usize) {
    let mut rest = len;
    while rest >= 0x80 {
        bytes.push(rest.to_le_bytes()[0] | 0x80);
        rest >>= 7;
    }
    bytes.push(rest.to_le_bytes()[0]);
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) =
            self.rest.split_at_checked(count).ok_or(DecodeError::Malformed { what: "it ends early" })?;
        self.rest = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, DecodeError> {
        self.take(1).map(|taken| taken[0])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N)?);
        Ok(bytes)
    }

    /// A compact-u16 in its shortest form; longer forms would give one transaction two encodings.
    fn len(&mut self) -> Result<usize, DecodeError> {
        let mut value = 0_usize;
        for shift in [0, 7, 14] {
            let byte = self.byte()?;
            value |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                let shortest = shift == 0 || byte != 0;
                return if shortest && value <= usize::from(u16::MAX) {
                    Ok(value)
                } else {
                    Err(DecodeError::Malformed { what: "a length is not in its shortest form" })
                };
            }
        }
        Err(DecodeError::Malformed { what: "a length is over 65535" })
    }
}

fn read_accounts(reader: &mut Reader<'_>, signatures: usize) -> Result<Vec<AccountMeta>, DecodeError> {
    let first = reader.byte()?;
    if first & 0x80 != 0 {
        return Err(DecodeError::Versioned { version: first & 0x7f });
    }
    let signers = usize::from(first);
    let signers_read = usize::from(reader.byte()?);
    let others_read = usize::from(reader.byte()?);
    let count = reader.len()?;
    if signers != signatures || signers == 0 || signers_read >= signers || signers + others_read > count || count > 256
    {
        return Err(DecodeError::Malformed { what: "its header does not fit its accounts and signatures" });
    }
    let accounts = (0..count)
        .map(|at| {
            let signer = at < signers;
            let writable = if signer { at < signers - signers_read } else { at < count - others_read };
            Ok(AccountMeta { address: Address(reader.array()?), signer, writable })
        })
        .collect::<Result<Vec<_>, DecodeError>>()?;
    let mut addresses: Vec<_> = accounts.iter().map(|meta| meta.address).collect();
    addresses.sort_unstable();
    addresses.dedup();
    if addresses.len() != accounts.len() {
        return Err(DecodeError::Malformed { what: "an account is listed twice" });
    }
    Ok(accounts)
}

fn read_instruction(reader: &mut Reader<'_>, accounts: &[AccountMeta]) -> Result<Instruction, DecodeError> {
    let account = |index: u8| {
        accounts
            .get(usize::from(index))
            .copied()
            .ok_or(DecodeError::Malformed { what: "it names an account it does not list" })
    };
    let program = account(reader.byte()?)?.address;
    let count = reader.len()?;
    let named = reader.take(count)?.iter().map(|&index| account(index)).collect::<Result<Vec<_>, DecodeError>>()?;
    let count = reader.len()?;
    Ok(Instruction { program, accounts: named, data: reader.take(count)?.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(seed: u8) -> Keypair {
        Keypair::from_seed(&[seed; 32])
    }

    fn two_signers() -> SignedTransaction {
        let instruction = Instruction {
            program: Address([8; 32]),
            accounts: vec![
                AccountMeta::read(Address([5; 32])),
                AccountMeta::sign(key(2).address()),
                AccountMeta::write(Address([6; 32])),
                AccountMeta::sign_write(key(1).address()),
            ],
            data: vec![7; 200],
        };
        sign(&[instruction], &key(1), &[&key(2)], &Hash([4; 32])).unwrap()
    }

    #[test]
    fn signing_and_decoding_agree() {
        let signed = two_signers();
        let decoded = decode(signed.bytes()).unwrap();
        assert_eq!(decoded.signatures[0], signed.signature());
        assert_eq!(decoded.accounts[0], AccountMeta::sign_write(key(1).address()));
        assert_eq!(decoded.accounts[1], AccountMeta::sign(key(2).address()));
        assert_eq!(decoded.accounts[2], AccountMeta::write(Address([6; 32])));
        assert_eq!(decoded.blockhash, Hash([4; 32]));
        let [instruction] = &decoded.instructions[..] else { panic!("{decoded:?}") };
        assert_eq!(instruction.accounts[0], AccountMeta::read(Address([5; 32])));
        assert_eq!(instruction.data, vec![7; 200]);
        assert_eq!(SignedTransaction::from_bytes(signed.bytes().to_vec()), Ok(signed));
    }

    #[test]
    fn missing_and_superfluous_signers_are_named() {
        let instruction = Instruction {
            program: Address([8; 32]),
            accounts: vec![AccountMeta::sign(key(2).address())],
            data: vec![],
        };
        let build = |signers: &[&Keypair]| sign(std::slice::from_ref(&instruction), &key(1), signers, &Hash([0; 32]));
        assert_eq!(build(&[]).unwrap_err(), BuildError::MissingSigner { address: key(2).address() });
        assert_eq!(build(&[&key(2), &key(3)]).unwrap_err(), BuildError::UnusedSigner { address: key(3).address() });
        assert!(build(&[&key(2)]).is_ok());
    }

    #[test]
    fn the_size_limit_is_exact_and_says_so() {
        let build = |data: usize| {
            let instruction = Instruction { program: Address([8; 32]), accounts: vec![], data: vec![0; data] };
            sign(&[instruction], &key(1), &[], &Hash([0; 32]))
        };
        let spare = TRANSACTION_BYTES_MAX - build(200).unwrap().bytes().len();
        assert_eq!(build(200 + spare).unwrap().bytes().len(), TRANSACTION_BYTES_MAX);
        let refused = build(201 + spare).unwrap_err();
        assert_eq!(refused, BuildError::TooLarge { bytes: TRANSACTION_BYTES_MAX + 1 });
        assert!(refused.to_string().contains("1233") && refused.to_string().contains("split"), "{refused}");
    }

    #[test]
    fn one_changed_bit_anywhere_is_refused() {
        let signed = two_signers();
        for at in 0..signed.bytes().len() {
            let mut bytes = signed.bytes().to_vec();
            bytes[at] ^= 1;
            assert!(decode(&bytes).is_err(), "byte {at}");
            assert!(decode(&signed.bytes()[..at]).is_err(), "cut at {at}");
        }
        let mut longer = signed.bytes().to_vec();
        longer.push(0);
        assert_eq!(decode(&longer), Err(DecodeError::Malformed { what: "bytes after its end" }));
    }

    #[test]
    fn lengths_have_one_form() {
        for (len, bytes) in [(0, vec![0]), (127, vec![127]), (128, vec![0x80, 1]), (16_384, vec![0x80, 0x80, 1])] {
            let mut put = Vec::new();
            put_len(&mut put, len);
            assert_eq!(put, bytes);
            assert_eq!(Reader { rest: &put }.len(), Ok(len));
        }
        for bad in [&[0x80, 0][..], &[0x80, 0x80, 0], &[0xff, 0xff, 4], &[0xff, 0xff, 0xff], &[0x80]] {
            assert!(Reader { rest: bad }.len().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..1300)) {
            let _ = decode(&bytes);
        }
    }
}
