//! Gives back the memory that only the start of the process needed.
//!
//! The supervisor is one role of a large binary: relocating it and getting going touches some 20 MB of its file that are
//! never used again. Pages that still equal the file can be dropped at any time; the kernel reads the few that are needed
//! again from its page cache.

use std::fs;

/// Drops every page of mapped files that is unchanged and cannot change. What is needed again comes back by itself.
pub(super) fn drop_unchanged_file_pages() {
    for (start, length) in unchanged(&fs::read_to_string("/proc/self/smaps").unwrap_or_default()) {
        // SAFETY: the mapping is private to this process, not writable, and holds no page of its own (`Anonymous: 0`), so
        // each of its pages can be read from its file again; addresses are this process's own mappings.
        unsafe { libc::madvise(start as *mut libc::c_void, length, libc::MADV_DONTNEED) };
    }
}

/// Pure: start and length of the private, unwritable mappings of files without pages of their own.
fn unchanged(smaps: &str) -> Vec<(usize, usize)> {
    let (mut found, mut current) = (Vec::new(), None);
    for line in smaps.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(first), second) = (words.next(), words.next()) else { continue };
        if let Some((start, end)) = first.split_once('-') {
            let number = |text| usize::from_str_radix(text, 16).ok();
            let file = words.nth(3).is_some_and(|path| path.starts_with('/'));
            let fixed = matches!(second, Some("r-xp" | "r--p")) && file;
            current = number(start).zip(number(end)).filter(|(start, end)| fixed && start < end);
        } else if first == "Anonymous:" && second == Some("0") {
            found.extend(current.take().map(|(start, end)| (start, end - start)));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_file_can_give_back_is_dropped() {
        let smaps = "1000-3000 r-xp 00001000 fe:00 7   /usr/bin/atoll\nRss: 8 kB\nAnonymous:   0 kB\nVmFlags: rd ex\n\
                     3000-4000 r--p 00003000 fe:00 7   /usr/bin/atoll\nAnonymous:   4 kB\n\
                     4000-5000 rw-p 00004000 fe:00 7   /usr/bin/atoll\nAnonymous:   0 kB\n\
                     5000-6000 r--p 00000000 00:00 0\nAnonymous:   0 kB\n\
                     6000-7000 r--p 00000000 00:00 0   [vvar]\nAnonymous:   0 kB\n\
                     7000-8000 r--s 00000000 fe:00 9   /dev/x\nAnonymous:   0 kB\n";
        assert_eq!(unchanged(smaps), [(0x1000, 0x2000)]);
    }

    #[test]
    fn a_process_goes_on_after_it() {
        let found = unchanged(&fs::read_to_string("/proc/self/smaps").unwrap());
        assert!(
            found.iter().map(|(_, length)| length).sum::<usize>() > 1 << 20,
            "the test's own code at least: {found:?}"
        );
        drop_unchanged_file_pages();
        assert_eq!(unchanged("").len(), 0, "and its code still runs");
    }
}
