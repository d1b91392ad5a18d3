//! An allocator that counts for the whole process: a test that uses it is alone in its binary.

use peak_alloc::PeakAlloc;

#[global_allocator]
pub(crate) static ALLOCATOR: PeakAlloc = PeakAlloc;

/// The most that was allocated at once meanwhile, given back or not.
pub(crate) fn allocated<T>(run: impl FnOnce() -> T) -> (usize, T) {
    ALLOCATOR.reset_peak_usage();
    let before = ALLOCATOR.current_usage();
    let result = run();
    (ALLOCATOR.peak_usage() - before, result)
}
