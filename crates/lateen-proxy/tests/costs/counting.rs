//! The system's allocator, and what is asked of it.
#![expect(unsafe_code, reason = "an allocator is an unsafe trait; each call goes to the system's as it came")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static HELD: AtomicU64 = AtomicU64::new(0);

pub(crate) struct Counting;

/// How often memory was asked for so far.
pub(crate) fn allocations() -> u64 {
    ALLOCATIONS.load(Ordering::SeqCst)
}

/// Bytes that were asked for and not given back.
pub(crate) fn held() -> u64 {
    HELD.load(Ordering::SeqCst)
}

fn taken(bytes: usize) {
    ALLOCATIONS.fetch_add(1, Ordering::SeqCst);
    HELD.fetch_add(bytes as u64, Ordering::SeqCst);
}

// SAFETY: all memory is the system allocator's, under its own contract; counting touches none of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        taken(layout.size());
        // SAFETY: the caller's promises are those that this call needs.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        taken(layout.size());
        // SAFETY: the caller's promises are those that this call needs.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size() as u64, Ordering::SeqCst);
        // SAFETY: the caller's promises are those that this call needs.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        HELD.fetch_sub(layout.size() as u64, Ordering::SeqCst);
        taken(size);
        // SAFETY: the caller's promises are those that this call needs.
        unsafe { System.realloc(memory, layout, size) }
    }
}
