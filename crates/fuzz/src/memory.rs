//! Counts what one thread holds on the heap, so that an input that makes its reader allocate without bound is found
//! before the machine is full.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// Bytes held now, and the most held since [`begin`]. Frees of other threads' memory make it negative: that is fine,
    /// as only differences within one call are looked at.
    static HELD: Cell<(i64, i64)> = const { Cell::new((0, 0)) };
}

/// The system's allocator, counting. A test binary takes it by
/// `#[global_allocator] static ALLOCATOR: atoll_fuzz::memory::Counting = atoll_fuzz::memory::Counting;`.
#[derive(Clone, Copy, Debug)]
pub struct Counting;

fn count(bytes: usize, taken: bool) {
    let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
    // A thread that ends allocates after its counters are gone.
    let _ = HELD.try_with(|held| {
        let (now, most) = held.get();
        let now = if taken { now.saturating_add(bytes) } else { now.saturating_sub(bytes) };
        held.set((now, most.max(now)));
    });
}

// SAFETY: every call goes to the system's allocator unchanged; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), true);
        // SAFETY: the caller keeps `alloc`'s contract, and it is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), true);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(layout.size(), false);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both may be held for a moment.
        count(size, true);
        count(layout.size(), false);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// Begins to look for the most; gives what is held now.
pub(crate) fn begin() -> i64 {
    HELD.with(|held| {
        let (now, _) = held.get();
        held.set((now, now));
        now
    })
}

/// The most that was held beyond `before` at any moment since [`begin`]; 0 where nobody counts.
pub(crate) fn most_since(before: i64) -> usize {
    let (_, most) = HELD.get();
    usize::try_from(most.saturating_sub(before)).unwrap_or_default()
}
