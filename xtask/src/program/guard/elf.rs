//! The guard's half over the linked bytes: where every call goes.

use super::SYSCALLS;
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;

const CALL: u8 = 0x85;
const CALL_REGISTER: u8 = 0x8d;
const JUMP: u8 = 0x05;
const EXIT: u8 = 0x95;
/// Bytes of one instruction.
const WORD: usize = 8;
/// `R_BPF_64_32`: the loader puts a syscall's number here.
const RELOCATED_CALL: u32 = 10;

/// A call that the loader does not relocate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalCall {
    /// Its offset in the file.
    pub(crate) offset: usize,
    /// Its instruction in `.text`.
    at: i64,
    /// The instruction it goes to.
    target: i64,
    /// Its source register: 1 marks a call within the program.
    kind: u8,
}

struct Section {
    address: u64,
    offset: usize,
    size: usize,
}

struct Elf<'a> {
    bytes: &'a [u8],
    sections: BTreeMap<String, Section>,
}

impl<'a> Elf<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self> {
        let mut elf = Self { bytes, sections: BTreeMap::new() };
        let is_bpf = elf.slice(0, 4)? == b"\x7fELF" && elf.slice(18, 2)? == [247, 0];
        if !is_bpf {
            bail!("not an ELF file of the BPF machine");
        }
        let (table, count, names) = (elf.long(40)?, elf.half(60)?, elf.half(62)?);
        let header = |index: u16| table.saturating_add(usize::from(index).saturating_mul(64));
        let names_offset = elf.long(header(names).saturating_add(24))?;
        for index in 0..count {
            let at = header(index);
            let name = elf.text(names_offset.saturating_add(elf.word(at)? as usize))?;
            let section = Section {
                address: elf.long(at.saturating_add(16))? as u64,
                offset: elf.long(at.saturating_add(24))?,
                size: elf.long(at.saturating_add(32))?,
            };
            elf.sections.insert(name, section);
        }
        Ok(elf)
    }

    fn slice(&self, at: usize, len: usize) -> Result<&'a [u8]> {
        let end = at.checked_add(len).context("an offset leaves the file")?;
        self.bytes.get(at..end).context("the file ends too early")
    }

    fn half(&self, at: usize) -> Result<u16> {
        Ok(u16::from_le_bytes(self.slice(at, 2)?.try_into()?))
    }

    fn word(&self, at: usize) -> Result<u32> {
        Ok(u32::from_le_bytes(self.slice(at, 4)?.try_into()?))
    }

    fn long(&self, at: usize) -> Result<usize> {
        Ok(usize::try_from(u64::from_le_bytes(self.slice(at, 8)?.try_into()?))?)
    }

    fn text(&self, at: usize) -> Result<String> {
        let tail = self.bytes.get(at..).context("a name lies outside the file")?;
        Ok(String::from_utf8_lossy(tail.split(|byte| *byte == 0).next().unwrap_or(tail)).into_owned())
    }

    fn section(&self, name: &str) -> Result<&Section> {
        self.sections.get(name).with_context(|| format!("there is no section {name}"))
    }

    /// Address and symbol of every call that the loader relocates.
    fn relocated_calls(&self) -> Result<BTreeMap<u64, String>> {
        let (Ok(relocations), symbols) = (self.section(".rel.dyn"), self.section(".dynsym")) else {
            return Ok(BTreeMap::new());
        };
        let (symbols, names) = (symbols?, self.section(".dynstr")?);
        let mut calls = BTreeMap::new();
        for entry in (0..relocations.size).step_by(16) {
            let at = relocations.offset.saturating_add(entry);
            if self.word(at.saturating_add(8))? == RELOCATED_CALL {
                let symbol = self.word(at.saturating_add(12))? as usize;
                let name = self.word(symbols.offset.saturating_add(symbol.saturating_mul(24)))? as usize;
                calls.insert(self.long(at)? as u64, self.text(names.offset.saturating_add(name))?);
            }
        }
        Ok(calls)
    }
}

/// Looks through a program's bytes.
///
/// # Errors
/// Names the first call that goes nowhere, or a syscall that is not proven.
pub(crate) fn check(bytes: &[u8]) -> Result<()> {
    let elf = Elf::parse(bytes)?;
    for name in elf.relocated_calls()?.values() {
        if !SYSCALLS.contains(&name.as_str()) {
            bail!("the program imports `{name}`, which has no operation in the conformance program");
        }
    }
    let text = elf.section(".text")?;
    let count = i64::try_from(text.size / WORD)?;
    for call in local_calls(bytes)? {
        let LocalCall { offset, at, target, kind } = call;
        if kind != 1 || target == at || !(0..count).contains(&target) {
            bail!(
                "the call at instruction {at} (file offset {offset}) keeps a raw offset to {target}: it was not linked"
            );
        }
        let before = usize::try_from(target)?.checked_sub(1);
        let before = before.map(|index| elf.slice(text.offset.saturating_add(index.saturating_mul(WORD)), 1));
        let opcode = before.transpose()?.map_or(EXIT, |byte| byte[0]);
        if ![EXIT, JUMP, CALL, CALL_REGISTER].contains(&opcode) {
            bail!("the call at instruction {at} goes to {target}, where no function starts: a raw offset?");
        }
    }
    Ok(())
}

/// Every call that the loader does not relocate.
pub(crate) fn local_calls(bytes: &[u8]) -> Result<Vec<LocalCall>> {
    let elf = Elf::parse(bytes)?;
    let (text, relocated) = (elf.section(".text")?, elf.relocated_calls()?);
    let code = elf.slice(text.offset, text.size)?;
    if code.is_empty() || code.len() % WORD != 0 {
        bail!(".text is not a row of instructions");
    }
    let mut calls = Vec::new();
    let (mut at, mut skip) = (0i64, false);
    for (word, address) in code.as_chunks::<WORD>().0.iter().zip((text.address..).step_by(WORD)) {
        // The second half of a 64-bit load is data.
        if !skip && word[0] == CALL && !relocated.contains_key(&address) {
            let immediate = i64::from(i32::from_le_bytes([word[4], word[5], word[6], word[7]]));
            let index = usize::try_from(at)?;
            calls.push(LocalCall {
                offset: text.offset.saturating_add(index.saturating_mul(WORD)),
                at,
                target: at.saturating_add(1).saturating_add(immediate),
                kind: word[1] >> 4,
            });
        }
        skip = !skip && word[0] == 0x18;
        at = at.saturating_add(1);
    }
    Ok(calls)
}
