//! How many bytes must have come before a reader is woken.

#![allow(unsafe_code, reason = "neither std nor socket2 nor rustix offers SO_RCVLOWAT")]

use std::{io, os::fd::AsRawFd as _};
use tokio::net::TcpStream;

/// Sets `SO_RCVLOWAT`. Lowering it wakes the reader at once if enough is there already: Linux signals that from 4.18 on.
pub(super) fn set(socket: &TcpStream, bytes: u32) -> io::Result<()> {
    let value = libc::c_int::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let len = libc::socklen_t::try_from(size_of_val(&value)).expect("an int is small");
    // SAFETY: the descriptor is open as long as `socket` is borrowed, and the option reads `len` bytes of an int.
    let answer = unsafe {
        let pointer = std::ptr::from_ref(&value).cast();
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVLOWAT, pointer, len)
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
