//! The state of an interface's link: an interface's name in, up, down or gone out (netdevice(7)).
//!
//! Asked from the kernel by ioctl and not from /sys, which shows the interfaces of the network namespace it was
//! mounted in and may not be there at all.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};

/// What an interface's link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// It carries frames.
    Up,
    /// It is administratively up but has no carrier.
    NoCarrier,
    /// It is administratively down.
    Down,
}

impl Link {
    /// The state in words.
    pub fn describe(self) -> &'static str {
        match self {
            Link::Up => "up",
            Link::NoCarrier => "up, no carrier",
            Link::Down => "down",
        }
    }
}

/// Asks about interfaces.
#[derive(Debug)]
pub struct LinkWatch {
    socket: OwnedFd,
}

impl LinkWatch {
    /// A watch on the interfaces of this process's network namespace.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub fn new() -> io::Result<LinkWatch> {
        let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        Ok(LinkWatch { socket })
    }

    /// The number of an interface.
    ///
    /// # Errors
    /// When there is no interface of this name.
    pub fn index(&self, interface: &str) -> io::Result<u32> {
        Ok(netdevice::name_to_index(&self.socket, interface)?)
    }

    /// The state of an interface.
    ///
    /// # Errors
    /// When there is no interface of this name.
    pub fn link(&self, interface: &str) -> io::Result<Link> {
        let request = self.ask(interface, libc::SIOCGIFFLAGS)?;
        // SAFETY: SIOCGIFFLAGS has filled in this member of the union, and any octets are a value of it.
        let flags = libc::c_int::from(unsafe { request.ifr_ifru.ifru_flags });
        Ok(match (flags & libc::IFF_UP != 0, flags & libc::IFF_RUNNING != 0) {
            (true, true) => Link::Up,
            (true, false) => Link::NoCarrier,
            (false, _) => Link::Down,
        })
    }

    /// The hardware type of an interface (ARPHRD_ of net/if_arp.h): 1 is Ethernet, 772 loopback, 65534 none.
    ///
    /// # Errors
    /// When there is no interface of this name.
    pub fn hardware(&self, interface: &str) -> io::Result<u16> {
        let request = self.ask(interface, libc::SIOCGIFHWADDR)?;
        // SAFETY: SIOCGIFHWADDR has filled in this member of the union, and any octets are a value of it.
        Ok(unsafe { request.ifr_ifru.ifru_hwaddr.sa_family })
    }

    fn ask(&self, interface: &str, what: libc::Ioctl) -> io::Result<libc::ifreq> {
        // SAFETY: an `ifreq` is octets, integers and pointers, for all of which zero is a value.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        // One octet stays zero, the end of the name.
        if interface.len() >= request.ifr_name.len() {
            return Err(io::ErrorKind::NotFound.into());
        }
        for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
            *to = from as libc::c_char;
        }
        // SAFETY: the descriptor is open, and what is asked reads and writes one `ifreq`, which lives until it returns.
        match unsafe { libc::ioctl(self.socket.as_raw_fd(), what, &raw mut request) } {
            0 => Ok(request),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_exist_is_an_error() {
        let watch = LinkWatch::new().unwrap();
        assert!(watch.link("no such thing").is_err());
        assert!(watch.link("a name that is longer than any interface can have").is_err());
        assert!(watch.index("no such thing").is_err());
    }

    #[test]
    fn an_interface_that_exists_has_a_state_and_a_number() {
        let watch = LinkWatch::new().unwrap();
        assert!(watch.index("lo").unwrap() > 0);
        assert!(matches!(watch.link("lo"), Ok(Link::Up | Link::Down)));
    }
}
