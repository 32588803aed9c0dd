//! Loopback, where each packet comes by twice: on its way out and on its way in.
//!
//! libpcap hands on the one that comes in and drops the other, but only after the kernel has counted both as received
//! and found room for both in the ring. So that `received = read + dropped` holds there too, the kernel is told to
//! leave the outgoing ones out: on loopback itself by a socket option (`PACKET_IGNORE_OUTGOING`, Linux 4.20), on all
//! interfaces together by a filter, since on the others what goes out passes once. A filter is no good for the former:
//! libpcap runs it itself over the first block of the ring, where an Ethernet frame does not tell its direction.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd};

/// The interface that libpcap takes for loopback.
pub const LOOPBACK: &str = "lo";

/// Keeps what goes out from a packet socket.
///
/// # Errors
/// What the kernel says; one older than the option does not know it.
pub fn ignore_outgoing(socket: &impl AsFd) -> io::Result<()> {
    let argument: libc::c_int = 1;
    // SAFETY: the descriptor is open as long as it is borrowed; the pointer and the length are those of an int that
    // lives until the call returns, and the kernel only reads it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_IGNORE_OUTGOING,
            (&raw const argument).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A filter expression for what goes out by the loopback interface with this number, for frames that tell both
/// (LINKTYPE_LINUX_SLL2).
pub fn outgoing(index: u32) -> String {
    format!("outbound and ifindex {index}")
}
