//! Bytes that are allocated now, and at most were: Rust's, not those of aws-lc's C.

use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Allocated now.
pub(crate) fn live() -> usize {
    ALLOCATOR.current_usage()
}

/// The most that was allocated at once since this was asked last.
pub(crate) fn peak() -> usize {
    let peak = ALLOCATOR.peak_usage();
    ALLOCATOR.reset_peak_usage();
    peak
}
