//! Live capture: frames from an interface, through libpcap (TPACKET_V3 on Linux).
//!
//! In: an interface's name, a snaplen, a BPF filter. Out: [`Frame`]s as they come, none when the link is quiet or the
//! interface gone, and the kernel's cumulative drop counts, widened from libpcap's 32 bits.
//!
//! The handle is non-blocking and waited for with `poll`: a blocking read returns only with packets, timeout or not,
//! and a quiet link must still export on time. The ring hands over blocks, not packets: immediate mode stays off.
//! Frames are read by `pcap_dispatch`, many a call. While there is traffic nobody waits for the next block: the ring is
//! left alone as long as it has room ([`ring`]).
//!
//! # Every packet counted once
//!
//! `received = read + dropped by the kernel`, exactly, from the first frame to the last. A socket takes in packets
//! from the moment it is bound, before its filter and its fanout group are set; so at first a filter that lets
//! nothing pass is attached, and what came in before it is read and forgotten. At the end the same filter shuts the
//! door, and what is in the ring is read to its end. Both take the socket's own option: libpcap's setter would filter
//! what is in the ring already as well.
//!
//! # An interface that goes away
//!
//! When the link goes down the socket stays and the kernel picks it up again with the link. When the interface itself
//! vanishes the socket is dead: what is left in its ring is read, and once a second an interface of the same name is
//! looked for. Each change is logged once.

pub mod fanout;
pub mod interfaces;
pub mod link;
mod loopback;
pub mod ring;

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use log::{debug, warn};
use pcap::{Active, Capture, Device, Precision};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{SockFilter, SockRef};
use thiserror::Error;

use self::fanout::FanoutGroup;
use self::link::{Link, LinkWatch};
use self::loopback::LOOPBACK;
use self::ring::Gathering;
use crate::capture::{CaptureDrops, Frame, LinkType};
use crate::time::Timestamp;

/// How long the kernel is to hold back an unfilled block of the ring at the most.
const BLOCK_TIMEOUT: Duration = Duration::from_millis(100);
/// A packet captured longer ago than this can be read: the kernel's timer for a block may be late, and is not by one and a half
/// times as long again.
pub const IN_FLIGHT: Duration = Duration::from_millis(BLOCK_TIMEOUT.as_millis() as u64 * 5 / 2);
/// Two blocks of the ring, as libpcap cuts it: a ring of one, which it makes of anything less, drops all that comes while
/// the block is read.
const LEAST_RING: u32 = 2 << 18;
/// How often a lost interface is looked for, and the link of a present one.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Cooked capture with the interface in its header (DLT_LINUX_SLL2).
const COOKED_V2: pcap::Linktype = pcap::Linktype(276);
/// The name that means all interfaces.
pub const ANY: &str = "any";

/// The settings of a live capture.
#[derive(Clone, Debug)]
pub struct LiveOptions {
    /// Octets of each frame that are captured: enough for the longest headers that are decoded.
    pub snaplen: u32,
    /// Whether the interface takes in frames for other hosts.
    pub promiscuous: bool,
    /// The size of the kernel's ring in octets.
    pub buffer_octets: u32,
    /// A BPF expression; empty for all frames.
    pub filter: String,
    /// A BPF expression of what is left out besides; empty for nothing.
    pub leave_out: String,
}

impl Default for LiveOptions {
    fn default() -> LiveOptions {
        LiveOptions {
            snaplen: 256,
            promiscuous: true,
            buffer_octets: 64 << 20,
            filter: String::new(),
            leave_out: String::new(),
        }
    }
}

/// Why an interface cannot be captured on.
#[derive(Debug, Error)]
pub enum LiveError {
    /// It cannot be opened.
    #[error("opening interface {interface}: {reason}")]
    Open {
        /// The interface.
        interface: String,
        /// libpcap's word, and what to do.
        reason: String,
    },
    /// The filter does not compile.
    #[error("--filter '{filter}': {reason}")]
    Filter {
        /// The expression.
        filter: String,
        /// libpcap's word.
        reason: String,
    },
}

/// An interface that is captured on, by one thread.
pub struct LiveCapture {
    interface: String,
    options: LiveOptions,
    fanout: Option<FanoutGroup>,
    /// The how manieth of the threads on one interface: the first alone reports on the interface, which all of them
    /// see.
    thread: usize,
    state: State,
    link_type: LinkType,
    /// What former handles counted.
    before: CaptureDrops,
    watch: LinkWatch,
    link: Link,
    looked: Instant,
}

enum State {
    Open(Handle),
    /// The interface is gone since then.
    Gone(Instant),
}

/// An open libpcap handle.
struct Handle {
    capture: Capture<Active>,
    index: u32,
    counted: CaptureDrops,
    /// What the kernel told outside of libpcap, which will not hear of it.
    told_apart: CaptureDrops,
    gathering: Option<Gathering>,
    /// What was received before capture began, and what the interface had dropped by then.
    early: CaptureDrops,
    /// Since when the interface is gone; what is left in the ring is still to be read.
    dying: Option<(Instant, String)>,
}

impl Handle {
    fn open(
        interface: &str,
        options: &LiveOptions,
        fanout: Option<&FanoutGroup>,
        watch: &LinkWatch,
    ) -> Result<Handle, LiveError> {
        let failed = |reason: String| LiveError::Open {
            interface: interface.to_string(),
            reason: advise(interface, &reason),
        };
        let words = |error: pcap::Error| match error {
            pcap::Error::PcapError(words) => failed(words),
            other => failed(other.to_string()),
        };
        let mut capture = Capture::from_device(Device::from(interface))
            .map_err(words)?
            .snaplen(i32::try_from(options.snaplen).unwrap_or(i32::MAX))
            .promisc(options.promiscuous && interface != ANY)
            .buffer_size(i32::try_from(options.buffer_octets.max(LEAST_RING)).unwrap_or(i32::MAX))
            .timeout(BLOCK_TIMEOUT.as_millis() as i32)
            .precision(Precision::Nano)
            .open()
            .map_err(words)?;
        if interface == ANY {
            // The header that tells the interface; a libpcap before 1.10 has only the other one.
            let _ = capture.set_datalink(COOKED_V2);
        }
        let capture = capture.setnonblock().map_err(words)?;
        let index =
            if interface == ANY { 0 } else { watch.index(interface).map_err(|e| failed(e.to_string()))? };
        if interface == LOOPBACK {
            // An old kernel counts each packet twice, and meters it once all the same.
            let _ = loopback::ignore_outgoing(&capture);
        }
        let none = CaptureDrops::default();
        let mut handle = Handle {
            capture,
            index,
            counted: none,
            told_apart: none,
            gathering: Gathering::of(options.buffer_octets, options.snaplen),
            early: none,
            dying: None,
        };
        handle.shut_door().map_err(|error| failed(error.to_string()))?;
        if let Some(group) = fanout {
            group
                .join(&handle.capture, index, interface == LOOPBACK)
                .map_err(|error| failed(format!("joining a fanout group: {error}")))?;
        }
        handle.forget_early();
        let doubles = match watch.index(LOOPBACK) {
            Ok(index) if link_type(handle.capture.get_datalink()) == LinkType::LINUX_SLL2 => {
                loopback::outgoing(index)
            }
            _ => String::new(),
        };
        handle.filter(options, &doubles)?;
        Ok(handle)
    }

    /// Lets no packet in any more.
    fn shut_door(&self) -> std::io::Result<()> {
        const RETURN_NOTHING: SockFilter = SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, 0);
        SockRef::from(&self.capture).attach_filter(&[RETURN_NOTHING])
    }

    /// Reads and forgets what came in before the door was shut.
    fn forget_early(&mut self) {
        let until = Instant::now() + IN_FLIGHT;
        let counts = self.counts();
        let mut left = counts.received - counts.dropped_by_kernel;
        while left > 0 && Instant::now() < until {
            match self.capture.dispatch(None, |_| left = left.saturating_sub(1)) {
                Ok(0) => wait(self.capture.as_fd(), BLOCK_TIMEOUT),
                Ok(_) => {}
                Err(_) => break, // it will fail again when it is read
            }
        }
        self.early = self.counts();
    }

    /// Opens the door for what passes the filter, is not among what is to be left out and not among `doubles`.
    fn filter(&mut self, options: &LiveOptions, doubles: &str) -> Result<(), LiveError> {
        let mut set = |expression: &str| self.capture.filter(expression, true);
        let refused = |error: pcap::Error| LiveError::Filter {
            filter: options.filter.clone(),
            reason: error.to_string(),
        };
        // In this order: a `vlan` in the filter changes where headers lie for all that comes after it.
        let mut parts: Vec<String> = [doubles, &options.leave_out]
            .into_iter()
            .filter(|part| !part.is_empty())
            .map(|part| format!("not ({part})"))
            .collect();
        if !parts.is_empty() && !options.filter.trim().is_empty() {
            parts.push(format!("({})", options.filter));
        }
        // An empty filter too: it returns the snaplen, and what the kernel copies into the ring is then cut to it.
        if !parts.is_empty() && set(&parts.join(" and ")).is_ok() {
            return Ok(());
        }
        // It may be a link type without IP: there is nothing to leave out then.
        set(&options.filter).map_err(refused)
    }

    /// What this handle counted so far, that before its beginning included.
    fn counts(&mut self) -> CaptureDrops {
        if let Ok(now) = self.capture.stats() {
            // libpcap's counts are 32 bits wide and cumulative: add how far each has come.
            let widen = |sum: &mut u64, now: u32| {
                let step = now.wrapping_sub(*sum as u32);
                // The interface's own count starts anew when it does; that is no step.
                if step < 1 << 31 {
                    *sum += u64::from(step);
                }
            };
            widen(&mut self.counted.received, now.received);
            widen(&mut self.counted.dropped_by_kernel, now.dropped);
            widen(&mut self.counted.dropped_by_interface, now.if_dropped);
        }
        self.counted.plus(self.told_apart)
    }

    /// What this handle counted since its beginning.
    fn drops(&mut self) -> CaptureDrops {
        self.counts().since(self.early)
    }
}

impl LiveCapture {
    /// Opens an interface. `thread`: the how manieth of the threads on it this is, and their group if there are
    /// several.
    ///
    /// # Errors
    /// When it does not exist, may not be opened, or the filter does not compile.
    pub fn open(
        interface: &str,
        options: &LiveOptions,
        thread: usize,
        fanout: Option<FanoutGroup>,
    ) -> Result<LiveCapture, LiveError> {
        let watch = LinkWatch::new().map_err(|error| LiveError::Open {
            interface: interface.to_string(),
            reason: error.to_string(),
        })?;
        let handle = Handle::open(interface, options, fanout.as_ref(), &watch)?;
        let link_type = link_type(handle.capture.get_datalink());
        let mut capture = LiveCapture {
            interface: interface.to_string(),
            options: options.clone(),
            fanout,
            thread,
            state: State::Open(handle),
            link_type,
            before: CaptureDrops::default(),
            watch,
            link: Link::Up,
            looked: Instant::now(),
        };
        capture.look_at_link();
        Ok(capture)
    }

    /// The interface's name.
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// The link type of its frames.
    pub fn link_type(&self) -> LinkType {
        self.link_type
    }

    /// Hands the frames that are in the ring, `most` at most, to `take`; gives how many. Fewer than `most` means that
    /// the ring was read empty, or that the interface is gone.
    #[inline]
    pub fn read(&mut self, most: usize, mut take: impl FnMut(&Frame<'_>)) -> usize {
        let State::Open(handle) = &mut self.state else { return 0 };
        let (link_type, interface) = (self.link_type, handle.index);
        let mut count = 0;
        let result = handle.capture.dispatch(Some(most), |packet| {
            ring::prefetch_behind(packet.data);
            let header = packet.header;
            // The precision asked for is nanoseconds, and libpcap keeps them where microseconds have their name.
            let nanos = (header.ts.tv_sec.max(0) as u64)
                .saturating_mul(1_000_000_000)
                .saturating_add(header.ts.tv_usec.max(0) as u64);
            count += 1;
            take(&Frame {
                timestamp: Timestamp::from_nanos(nanos),
                wire_length: header.len,
                link_type,
                interface,
                data: packet.data,
            });
        });
        if let Err(error) = result {
            let words = match error {
                pcap::Error::PcapError(words) => words,
                other => other.to_string(),
            };
            handle.dying.get_or_insert_with(|| (Instant::now(), words));
        }
        count
    }

    /// Waits until frames are there, at most `longest`.
    pub fn wait(&self, longest: Duration) {
        match &self.state {
            State::Open(handle) if handle.dying.is_none() => wait(handle.capture.as_fd(), longest),
            // A dead socket would end the wait at once, over and over.
            _ => std::thread::sleep(longest),
        }
    }

    /// Lets frames gather in the ring while it has room, at most for `longest`; waits for them where the ring is too small
    /// for that.
    pub fn gather(&mut self, longest: Duration) {
        match &mut self.state {
            State::Open(Handle { gathering: Some(gathering), dying: None, capture, told_apart, .. }) => {
                let came = gathering.wait(capture, longest);
                told_apart.received += came.packets;
                told_apart.dropped_by_kernel += came.dropped;
            }
            _ => self.wait(longest),
        }
    }

    /// Looks after the link and, when it is gone, for the interface: to be called now and then, also while it is
    /// busy. Cheap until a second has passed since the last look.
    pub fn look_after(&mut self) {
        if let State::Open(handle) = &mut self.state
            && let Some((since, reason)) = &handle.dying
            && since.elapsed() >= IN_FLIGHT
        {
            let reason = reason.clone();
            self.close(&reason);
            return;
        }
        if self.looked.elapsed() < LOOK_EVERY {
            return;
        }
        self.looked = Instant::now();
        match &mut self.state {
            State::Open(handle) => {
                if self.interface != ANY && handle.dying.is_none() {
                    // One that came back under the same name is another one.
                    match self.watch.index(&self.interface) {
                        Ok(index) if index == handle.index => self.look_at_link(),
                        Ok(_) => handle.dying = Some((self.looked, "the interface was replaced".to_string())),
                        Err(error) => handle.dying = Some((self.looked, error.to_string())),
                    }
                }
            }
            State::Gone(since) => {
                let since = *since;
                self.reopen(since);
            }
        }
    }

    fn look_at_link(&mut self) {
        let Ok(link) = self.watch.link(&self.interface) else { return };
        if link != self.link && self.thread == 0 {
            warn!("interface {}: the link is {}", self.interface, link.describe());
        }
        self.link = link;
    }

    fn close(&mut self, reason: &str) {
        let State::Open(handle) = &mut self.state else { return };
        self.before = self.before.plus(handle.drops());
        if self.thread == 0 {
            warn!("interface {} is gone ({reason}); looking for it once a second", self.interface);
        }
        self.state = State::Gone(Instant::now());
        self.looked = Instant::now();
    }

    fn reopen(&mut self, since: Instant) {
        // What fails here fails every second until the interface is back; it was said once that it is gone.
        let Ok(handle) = Handle::open(&self.interface, &self.options, self.fanout.as_ref(), &self.watch)
        else {
            return;
        };
        self.link_type = link_type(handle.capture.get_datalink());
        self.state = State::Open(handle);
        self.link = Link::Up;
        if self.thread == 0 {
            warn!("interface {} is back after {:.1} s", self.interface, since.elapsed().as_secs_f64());
        }
        debug!("interface {}: socket {} is open again", self.interface, self.thread);
        self.look_at_link();
    }

    /// Lets no packet in any more; what is in the ring can still be read until [`LiveCapture::is_over`].
    pub fn end(&mut self) {
        if let State::Open(handle) = &mut self.state
            && let Err(error) = handle.shut_door()
        {
            warn!("interface {}: ending capture: {error}", self.interface);
        }
        self.looked = Instant::now();
    }

    /// Whether, after [`LiveCapture::end`] and a read that found nothing, there is nothing left to read.
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Gone(_)) || self.looked.elapsed() >= IN_FLIGHT
    }

    /// What the kernel counted so far. What the interface dropped is told by the first thread on it alone.
    pub fn drops(&mut self) -> CaptureDrops {
        let mut drops = match &mut self.state {
            State::Open(handle) => self.before.plus(handle.drops()),
            State::Gone(_) => self.before,
        };
        if self.thread > 0 {
            drops.dropped_by_interface = 0;
        }
        drops
    }
}

fn wait(descriptor: BorrowedFd<'_>, longest: Duration) {
    let timeout = Timespec { tv_sec: longest.as_secs() as i64, tv_nsec: i64::from(longest.subsec_nanos()) };
    // An interrupted wait is a short wait.
    let _ = poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&timeout));
}

/// The link type's number in capture files, where libpcap's own differs.
fn link_type(datalink: pcap::Linktype) -> LinkType {
    match datalink.0 {
        12 | 14 => LinkType::RAW,
        other => LinkType(u16::try_from(other).unwrap_or(u16::MAX)),
    }
}

/// The system's word, and where it is a want of rights the three ways to have them.
fn advise(interface: &str, reason: &str) -> String {
    let lower = reason.to_ascii_lowercase();
    if lower.contains("permission") || lower.contains("not permitted") {
        // The file that runs, which a name looked up in PATH need not be; sudo has a PATH of its own besides.
        let program = std::env::current_exe()
            .map_or_else(|_| "flowtap".to_string(), |program| program.display().to_string());
        format!(
            "{reason}; capturing needs CAP_NET_RAW. Either give it to the program, once: `sudo setcap cap_net_raw+ep \
             {program}`; or run it as a service, which has it: `sudo systemctl start flowtap@{interface}.service`; or run \
             it as root: `sudo {program} live -i {interface}`"
        )
    } else {
        reason.to_string()
    }
}
