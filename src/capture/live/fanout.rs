//! PACKET_FANOUT: one interface spread over several sockets by the kernel (packet(7)).
//!
//! In: the sockets of one interface. Out: each gets the packets of its share of conversations, both directions of one
//! in the same share, all fragments of a datagram as well (`PACKET_FANOUT_HASH` hashes symmetrically, and fragments
//! without their ports). The kernel's defragmentation (`PACKET_FANOUT_FLAG_DEFRAG`) stays off: it would hand over
//! reassembled datagrams, which were not on the wire. Rollover as well: a conversation that moves to another thread
//! when a ring fills up would be read out of order.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Arc, Mutex, PoisonError};

/// The group of the sockets that share one interface; clones are the same group.
#[derive(Clone, Debug, Default)]
pub struct FanoutGroup {
    joined: Arc<Mutex<Option<Joined>>>,
}

/// A group that a socket has joined.
#[derive(Clone, Copy, Debug)]
struct Joined {
    id: u16,
    /// A group is bound to the interface of its first socket.
    interface: u32,
}

impl FanoutGroup {
    /// Puts a bound packet socket into the group. The first one on an interface makes the group, under an identifier
    /// that nobody on this machine uses. Whether what goes out is left out is the group's to say, and not the socket's.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn join(&self, socket: &impl AsFd, interface: u32, ignores_outgoing: bool) -> io::Result<()> {
        let flags = if ignores_outgoing { FLAG_IGNORE_OUTGOING } else { 0 };
        // A poisoned lock guards an identifier that is sound at any time.
        let mut joined = self.joined.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(group) = joined.filter(|group| group.interface == interface) {
            return set(socket, group.id, flags);
        }
        set(socket, 0, flags | FLAG_UNIQUE_ID)?;
        *joined = Some(Joined { id: identifier(socket)?, interface });
        Ok(())
    }
}

/// `PACKET_FANOUT_FLAG_UNIQUEID` (linux/if_packet.h): the kernel chooses the identifier.
const FLAG_UNIQUE_ID: u16 = 0x2000;
/// `PACKET_FANOUT_FLAG_IGNORE_OUTGOING`: the same for every socket of a group. Kernels before 5.8 take no notice.
const FLAG_IGNORE_OUTGOING: u16 = libc::PACKET_FANOUT_FLAG_IGNORE_OUTGOING as u16;

fn set(socket: &impl AsFd, id: u16, flags: u16) -> io::Result<()> {
    const MODE: u32 = libc::PACKET_FANOUT_HASH;
    let argument = u32::from(id) | (MODE | u32::from(flags)) << 16;
    // SAFETY: the descriptor is open as long as it is borrowed; the pointer and the length are those of a u32 that
    // lives until the call returns, and the kernel only reads it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_FANOUT,
            (&raw const argument).cast(),
            size_of::<u32>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn identifier(socket: &impl AsFd) -> io::Result<u16> {
    let mut value = 0_u32;
    let mut length = size_of::<u32>() as libc::socklen_t;
    // SAFETY: as above; the kernel writes at most `length` octets, which is what `value` has.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_FANOUT,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(value as u16) } else { Err(io::Error::last_os_error()) }
}
