//! A bound on what the C library's allocator keeps beside what is in use.
#![allow(unsafe_code, reason = "mallopt is a plain call of the C library that Rust has no wrapper for")]

/// Arenas at the most. By default there may be eight for each processor, and each keeps its own freed chunks of a megabyte:
/// with two, an agent that seeds 2 GB takes 38 MiB instead of 51, about what it takes for 100 MB, at the same speed.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const ARENAS_MAX: libc::c_int = 2;

/// Free memory at the end of an arena that is kept. By default it is given back to the system beyond two chunks of a seed,
/// so that each chunk is faulted in anew, page by page: a tenth of all the work of a seed.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const TRIM_BEYOND: libc::c_int = 16 << 20;

/// Smaller allocations come from an arena; by default those of more than 128 KiB are mapped and faulted in one by one.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MAP_FROM: libc::c_int = 8 << 20;

/// Keeps the memory of this process about as large as what it uses. Call it first, before there are threads.
pub fn bound() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt only sets a number of the allocator; no other thread allocates yet.
    unsafe {
        // It answers 0 if it does not know the option; then everything is as it was.
        let _ = libc::mallopt(libc::M_ARENA_MAX, ARENAS_MAX);
        let _ = libc::mallopt(libc::M_TRIM_THRESHOLD, TRIM_BEYOND);
        let _ = libc::mallopt(libc::M_MMAP_THRESHOLD, MAP_FROM);
    }
}
