//! Reading the kernel's ring cheaply (packet(7), TPACKET_V3): a socket in, what has come into its ring out; a frame in,
//! and those behind it are asked for.
//!
//! A reader that is woken for each block finds its caches cold some hundred times a second, and on a link of medium
//! load that costs more than the packets do. So the ring is left alone until a good deal has gathered in it, and is looked
//! at on the way often enough that the fastest link does not fill it in between. And what it holds was last written on
//! another core.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd};
use std::thread;
use std::time::{Duration, Instant};

use crate::prefetch::prefetch;

/// Octets that frames take up in a ring in a second at the most: 14.88 million of the least length, 10 Gbit/s, each with
/// its header and alignment 144.
const FASTEST_OCTETS_A_SECOND: f64 = 14.88e6 * 144.0;
/// Octets of a frame's header in the ring, with alignment.
const HEADER_OCTETS: u64 = 96;
/// The share of the ring that may fill up between two looks.
const A_LOOK: f64 = 1.0 / 3.0;
/// The share of the ring that is enough to be read.
const ENOUGH: u64 = 4;
/// Octets of a ring that are reckoned with at the most: where the kernel has no memory for a large ring, libpcap takes a
/// smaller one and does not say so.
const MOST_RING: u32 = 64 << 20;
/// Where looks would have to follow each other faster than this, waiting for a block is cheaper.
const LEAST_PAUSE: Duration = Duration::from_millis(2);

/// What came into a ring, as the kernel counts it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Arrivals {
    /// Packets, those dropped included.
    pub packets: u64,
    /// Packets that found no room.
    pub dropped: u64,
}

/// How a ring may be left alone.
#[derive(Clone, Copy, Debug)]
pub struct Gathering {
    pause: Duration,
    enough_packets: u64,
}

impl Gathering {
    /// For a ring of so many octets whose frames have at most `snaplen`; none for one that is too small to be left alone.
    pub fn of(ring_octets: u32, snaplen: u32) -> Option<Gathering> {
        let ring_octets = ring_octets.min(MOST_RING);
        let pause = Duration::from_secs_f64(f64::from(ring_octets) * A_LOOK / FASTEST_OCTETS_A_SECOND);
        let enough_packets = u64::from(ring_octets) / ENOUGH / (u64::from(snaplen) + HEADER_OCTETS);
        (pause >= LEAST_PAUSE && enough_packets > 0).then_some(Gathering { pause, enough_packets })
    }

    /// Leaves the ring of `socket` alone until enough is in it, at most for `longest`; gives what has come into it since
    /// anybody last asked the kernel, which forgets what it has told.
    pub fn wait(&self, socket: &impl AsFd, longest: Duration) -> Arrivals {
        let began = Instant::now();
        let Ok(mut all) = arrivals(socket) else { return Arrivals::default() };
        let mut gathered = 0;
        while gathered < self.enough_packets {
            let left = longest.saturating_sub(began.elapsed());
            if left.is_zero() {
                break;
            }
            thread::sleep(self.pause.min(left));
            let Ok(new) = arrivals(socket) else { break };
            all.packets += new.packets;
            all.dropped += new.dropped;
            gathered += new.packets;
        }
        all
    }
}

/// What came into the ring since this was last asked.
fn arrivals(socket: &impl AsFd) -> io::Result<Arrivals> {
    let mut counts = libc::tpacket_stats_v3 { tp_packets: 0, tp_drops: 0, tp_freeze_q_cnt: 0 };
    let mut length = size_of::<libc::tpacket_stats_v3>() as libc::socklen_t;
    // SAFETY: the descriptor is open as long as it is borrowed; the kernel writes at most `length` octets, which is what
    // `counts` has, and any octets are integers.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut counts).cast(),
            &raw mut length,
        )
    };
    match result {
        0 => Ok(Arrivals { packets: counts.tp_packets.into(), dropped: counts.tp_drops.into() }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Asks for the memory of the frames that stand behind `frame` in its block: a tenth of the time a packet takes, as measured
/// at 100,000 packets a second.
#[inline(always)]
pub fn prefetch_behind(frame: &[u8]) {
    /// Two to four frames on, and as much as one and its header take up.
    const AHEAD: [usize; 3] = [640, 704, 768];
    for octets in AHEAD {
        prefetch(frame, octets);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_is_left_alone_no_longer_than_the_fastest_link_takes_to_fill_it() {
        let large = Gathering::of(64 << 20, 256).unwrap();
        assert_eq!(large.pause.as_millis(), 10);
        assert_eq!(large.enough_packets, 47_662);
        // What is enough, and what comes until the next look: half of the ring and some is left for the reader's delays.
        let at_most =
            large.enough_packets as f64 * 144.0 + large.pause.as_secs_f64() * FASTEST_OCTETS_A_SECOND;
        assert!(at_most < 0.6 * f64::from(64 << 20), "{at_most}");
        // A larger one may have become smaller.
        let larger = Gathering::of(1 << 30, 256).unwrap();
        assert_eq!((larger.pause, larger.enough_packets), (large.pause, large.enough_packets));
        assert!(Gathering::of(1 << 20, 256).is_none());
        assert!(Gathering::of(1 << 16, 65_535).is_none());
    }

    #[test]
    fn a_socket_without_a_ring_ends_the_wait_at_once() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let gathering = Gathering::of(64 << 20, 256).unwrap();
        let came = gathering.wait(&socket, Duration::from_secs(3600));
        assert_eq!((came.packets, came.dropped), (0, 0));
    }
}
