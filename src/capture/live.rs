//! Live capture: frames from an interface, through libpcap (TPACKET_V3 on Linux).
//!
//! In: an interface's name, a snaplen, a BPF filter. Out: [`Frame`]s as they come, "nothing for now" when the link
//! is quiet, and the kernel's cumulative drop counts, widened from libpcap's 32 bits.
//!
//! The handle is non-blocking and waited for with `poll`: a blocking read returns only with packets, timeout or not, and
//! a quiet link must still export on time. The ring hands over blocks, not packets: immediate mode stays off.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use pcap::{Active, Capture, Device};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use thiserror::Error;

use crate::capture::{CaptureDrops, Frame, LinkType};
use crate::time::Timestamp;

/// How long the kernel may hold back an unfilled block of the ring.
const BLOCK_TIMEOUT: Duration = Duration::from_millis(100);

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
}

impl Default for LiveOptions {
    fn default() -> LiveOptions {
        LiveOptions { snaplen: 256, promiscuous: true, buffer_octets: 64 << 20, filter: String::new() }
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
    /// Reading failed: the interface went away.
    #[error("reading from interface {interface}: {reason}")]
    Read {
        /// The interface.
        interface: String,
        /// libpcap's word.
        reason: String,
    },
}

/// What one read of a live interface brought.
pub enum Reading<'a> {
    /// A frame.
    Frame(Frame<'a>),
    /// Nothing for now.
    Nothing,
}

/// An open interface.
pub struct LiveCapture {
    capture: Capture<Active>,
    interface: String,
    index: u32,
    link_type: LinkType,
    drops: CaptureDrops,
}

impl LiveCapture {
    /// Opens an interface.
    ///
    /// # Errors
    /// When it does not exist, may not be opened, or the filter does not compile.
    pub fn open(interface: &str, options: &LiveOptions) -> Result<LiveCapture, LiveError> {
        let failed = |error: pcap::Error| LiveError::Open {
            interface: interface.to_string(),
            reason: advise(&error.to_string()),
        };
        let mut capture = Capture::from_device(Device::from(interface))
            .map_err(failed)?
            .snaplen(i32::try_from(options.snaplen).unwrap_or(i32::MAX))
            .promisc(options.promiscuous && interface != "any")
            .buffer_size(i32::try_from(options.buffer_octets).unwrap_or(i32::MAX))
            .timeout(BLOCK_TIMEOUT.as_millis() as i32)
            .open()
            .map_err(failed)?
            .setnonblock()
            .map_err(failed)?;
        // An empty filter too: it returns the snaplen, and what the kernel copies into the ring is then cut to it.
        capture.filter(&options.filter, true).map_err(|error| LiveError::Filter {
            filter: options.filter.clone(),
            reason: error.to_string(),
        })?;
        let index = interface_index(interface);
        let link_type = link_type(capture.get_datalink());
        Ok(LiveCapture {
            capture,
            interface: interface.to_string(),
            index,
            link_type,
            drops: CaptureDrops::default(),
        })
    }

    /// The next frame, if one is in the ring.
    ///
    /// # Errors
    /// When the interface went away.
    #[inline]
    pub fn next_frame(&mut self) -> Result<Reading<'_>, LiveError> {
        match self.capture.next_packet() {
            Ok(packet) => {
                let (seconds, micros) = (packet.header.ts.tv_sec, packet.header.ts.tv_usec);
                let nanos = (seconds.max(0) as u64)
                    .saturating_mul(1_000_000_000)
                    .saturating_add(micros.max(0) as u64 * 1_000);
                Ok(Reading::Frame(Frame {
                    timestamp: Timestamp::from_nanos(nanos),
                    wire_length: packet.header.len,
                    link_type: self.link_type,
                    interface: self.index,
                    data: packet.data,
                }))
            }
            Err(pcap::Error::TimeoutExpired) => Ok(Reading::Nothing),
            Err(error) => {
                Err(LiveError::Read { interface: self.interface.clone(), reason: error.to_string() })
            }
        }
    }

    /// Waits until frames are there, at most `longest`.
    pub fn wait(&self, longest: Duration) {
        // SAFETY: the descriptor belongs to `self.capture`, which is open as long as `self` lives.
        let descriptor = unsafe { BorrowedFd::borrow_raw(self.capture.as_raw_fd()) };
        let timeout =
            Timespec { tv_sec: longest.as_secs() as i64, tv_nsec: i64::from(longest.subsec_nanos()) };
        // An interrupted wait is a short wait.
        let _ = poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&timeout));
    }

    /// What the kernel counted so far.
    pub fn drops(&mut self) -> CaptureDrops {
        if let Ok(now) = self.capture.stats() {
            // libpcap's counts are 32 bits wide and cumulative: add how far each has come.
            let widen = |sum: &mut u64, now: u32| *sum += u64::from(now.wrapping_sub(*sum as u32));
            widen(&mut self.drops.received, now.received);
            widen(&mut self.drops.dropped_by_kernel, now.dropped);
            widen(&mut self.drops.dropped_by_interface, now.if_dropped);
        }
        self.drops
    }
}

/// The link type's number in capture files, where libpcap's own differs.
fn link_type(datalink: pcap::Linktype) -> LinkType {
    match datalink.0 {
        12 | 14 => LinkType::RAW,
        other => LinkType(u16::try_from(other).unwrap_or(u16::MAX)),
    }
}

fn interface_index(interface: &str) -> u32 {
    std::fs::read_to_string(format!("/sys/class/net/{interface}/ifindex"))
        .ok()
        .and_then(|index| index.trim().parse().ok())
        .unwrap_or(0)
}

fn advise(reason: &str) -> String {
    if reason.contains("permission") || reason.contains("not permitted") {
        format!(
            "{reason}; capturing needs CAP_NET_RAW: run as root, or once `sudo setcap cap_net_raw+ep \
             $(command -v flowtap)`"
        )
    } else {
        reason.to_string()
    }
}
