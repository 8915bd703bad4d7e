//! The two things that libraries ask of the operating system behind everybody's back, made to follow from the seed: the
//! randomness with which hash maps and tokio's `select!` begin, and the monotonic clock.
//!
//! Both functions take the place of the C library's for this program alone, since the linker finds them first. As long as
//! nothing is frozen they do what those do.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

static FROZEN: AtomicBool = AtomicBool::new(false);
static RANDOM: AtomicU64 = AtomicU64::new(0);
static NANOS: AtomicU64 = AtomicU64::new(0);

/// Where the frozen clocks begin, in seconds: any time but zero, which some take for "never".
const BEGIN_SECONDS: u64 = 1_767_225_600;

/// From now on this process has no randomness but that of the seed, and no clock but the one that is set.
pub fn freeze(seed: u64) {
    RANDOM.store(seed, Ordering::SeqCst);
    FROZEN.store(true, Ordering::SeqCst);
}

/// Sets the frozen clock.
pub fn set_clock(since: Duration) {
    NANOS.store(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX), Ordering::SeqCst);
}

/// The next random number (splitmix64).
fn next() -> u64 {
    let state = RANDOM.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::SeqCst);
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// What the C library's `getrandom` does, see getrandom(2).
///
/// # Safety
/// `buffer` has to point to `length` bytes that may be written.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut libc::c_void, length: libc::size_t, flags: libc::c_uint) -> libc::ssize_t {
    if !FROZEN.load(Ordering::SeqCst) {
        // SAFETY: the system call takes the very arguments that were given.
        return unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) as libc::ssize_t };
    }
    // SAFETY: the caller vouches for the buffer, see above.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) };
    for piece in bytes.chunks_mut(8) {
        piece.copy_from_slice(&next().to_le_bytes()[..piece.len()]);
    }
    length as libc::ssize_t
}

/// What the C library's `clock_gettime` does, see clock_gettime(2).
///
/// # Safety
/// `time` has to point to a `timespec` that may be written.
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> libc::c_int {
    if !FROZEN.load(Ordering::SeqCst) {
        // SAFETY: the system call takes the very arguments that were given.
        return unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) as libc::c_int };
    }
    let since = Duration::from_secs(BEGIN_SECONDS) + Duration::from_nanos(NANOS.load(Ordering::SeqCst));
    // SAFETY: the caller vouches for the pointer, see above.
    unsafe {
        (*time).tv_sec = since.as_secs() as libc::time_t;
        (*time).tv_nsec = since.subsec_nanos().into();
    }
    0
}
