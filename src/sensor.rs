//! The live sensor: interfaces in, a [`RunReport`] out when it is told to end.
//!
//! ```text
//! supervisor (the calling thread): signals, dead threads, the log of what was dropped
//! capture thread ─► intake ─┐      one an interface, or as many as an interface is spread over; each reads, decodes
//! capture thread ─► intake ─┴─► shards ─► exporters
//! ```
//!
//! [`Sensor::open`] does all that needs privileges, [`Sensor::run`] starts the threads: what a process gives up goes
//! in between. At the end the doors are shut, the rings read to their end, so that each packet let in is in a count.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use log::{debug, info, warn};
use thiserror::Error;

use crate::capture::live::fanout::FanoutGroup;
use crate::capture::live::{IN_FLIGHT, LiveCapture, LiveError, LiveOptions};
use crate::capture::write::{FrameFile, FrameLog};
use crate::capture::{CaptureDrops, LinkType};
use crate::export::{self, Endpoint};
use crate::gauges::Gauges;
use crate::pipeline::{Backend, Destination, Intake, PipelineError, PipelineOptions};
use crate::signal::StopRequest;
use crate::stats::{RunReport, grouped};
use crate::time::Timestamp;

/// Frames between two looks at signals and clocks.
const LOOK_EVERY: usize = 8192;
/// How long a quiet interface is waited for at a time.
const QUIET_WAIT: Duration = Duration::from_millis(100);
/// For how long frames may gather in the ring of a busy interface.
const GATHER: Duration = Duration::from_millis(100);
/// How often the kernel's counts are asked for.
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// How long a ring is read at the end: enough for the largest, 2 GiB, and well within the 30 s a service has to stop.
const LAST_READ: Duration = Duration::from_secs(10);
/// How often the supervisor looks round.
const SUPERVISE_EVERY: Duration = Duration::from_millis(100);

/// The settings of a sensor.
#[derive(Clone, Debug)]
pub struct SensorOptions {
    /// The interfaces, each named once.
    pub interfaces: Vec<String>,
    /// How each is captured.
    pub live: LiveOptions,
    /// Threads that each interface is spread over, at least 1.
    pub capture_threads: usize,
    /// Where the frames are written as they are metered.
    pub write: Option<PathBuf>,
    /// How often the log says what was dropped.
    pub statistics_interval: Duration,
    /// Collectors on a network: what this host exports to them is not metered.
    pub collectors: Vec<export::Destination>,
}

/// Why a sensor could not start or go on.
#[derive(Debug, Error)]
pub enum SensorError {
    /// An interface.
    #[error(transparent)]
    Live(#[from] LiveError),
    /// The file for the frames.
    #[error("--write: opening {path:?} for writing")]
    Write {
        /// Its path.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// Interfaces of several link types, which no pcap file can hold.
    #[error(
        "--write: {first} has link type {} and {second} has {}, a pcap file has one: write a file whose name ends in \
         .pcapng, or name interfaces of one link type", .first_type.0, .second_type.0
    )]
    LinkTypes {
        /// An interface.
        first: String,
        /// Its link type.
        first_type: LinkType,
        /// Another interface.
        second: String,
        /// Its link type.
        second_type: LinkType,
    },
    /// The pipeline.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// Who looks after the sensor.
    #[error(transparent)]
    Attendant(Box<dyn Error>),
}

/// The open interfaces of a sensor.
pub struct Sensor {
    captures: Vec<LiveCapture>,
    write: Option<FrameFile>,
    statistics_interval: Duration,
}

/// Who looks after a sensor while it runs.
pub trait Attendant {
    /// Capture has begun.
    ///
    /// # Errors
    /// What keeps the sensor from running.
    fn started(&mut self, gauges: &Arc<Gauges>) -> Result<(), Box<dyn Error>>;
    /// Whether there is a reason to end besides a signal.
    fn has_to_end(&self) -> bool;
    /// The end has begun.
    fn ending(&mut self);
}

impl Sensor {
    /// Opens the interfaces and the file.
    ///
    /// # Errors
    /// The first of them that cannot be had.
    pub fn open(options: &SensorOptions) -> Result<Sensor, SensorError> {
        let live = LiveOptions { leave_out: own_export(&options.collectors), ..options.live.clone() };
        let mut captures = Vec::new();
        for interface in &options.interfaces {
            let group = (options.capture_threads > 1).then(FanoutGroup::default);
            for thread in 0..options.capture_threads.max(1) {
                captures.push(LiveCapture::open(interface, &live, thread, group.clone())?);
            }
        }
        let write = match (&options.write, captures.first()) {
            (Some(path), Some(first)) => {
                let other = captures.iter().find(|one| one.link_type() != first.link_type());
                if let Some(other) = other.filter(|_| !FrameFile::takes_link_types(path)) {
                    return Err(SensorError::LinkTypes {
                        first: first.interface().to_string(),
                        first_type: first.link_type(),
                        second: other.interface().to_string(),
                        second_type: other.link_type(),
                    });
                }
                let mut interfaces: Vec<_> =
                    captures.iter().map(|one| (one.interface(), one.link_type())).collect();
                interfaces.dedup(); // the threads of each stand side by side
                let file = FrameFile::create(path, &interfaces, options.live.snaplen)
                    .map_err(|source| SensorError::Write { path: path.clone(), source })?;
                Some(file)
            }
            _ => None,
        };
        Ok(Sensor { captures, write, statistics_interval: options.statistics_interval })
    }

    /// Captures until `stop` is asked for or the attendant has a reason to end.
    ///
    /// # Errors
    /// When the memory or the threads cannot be had, a thread died, or the attendant could not start.
    pub fn run(
        self,
        options: PipelineOptions,
        destinations: Vec<Destination>,
        stop: &StopRequest,
        attendant: &mut dyn Attendant,
    ) -> Result<RunReport, SensorError> {
        let Sensor { mut captures, write, statistics_interval } = self;
        let names: Vec<String> = captures.iter().map(|capture| capture.interface().to_string()).collect();
        let board = Board::new(names, stop.clone());
        let logs: Vec<Option<FrameLog>> =
            captures.iter().map(|one| write.as_ref().map(|file| file.log(one.interface()))).collect();
        let (backend, intakes) = Backend::start(options, captures.len(), destinations, None)?;
        let mut supervisor = Supervisor { board: &board, attendant, statistics_interval, backend: &backend };
        let (ended, drops) = supervisor.run(&mut captures, intakes, logs)?;
        let mut report = backend.finish(ended)?;
        report.capture = Some(drops);
        report.damaged.extend(write.and_then(|file| file.failure()));
        Ok(report)
    }
}

/// What the capture threads and their supervisor tell each other.
struct Board {
    names: Vec<String>,
    drops: Vec<Mutex<CaptureDrops>>,
    stop: StopRequest,
    /// Raised to end capture for another reason than a signal.
    end: AtomicBool,
}

impl Board {
    fn new(names: Vec<String>, stop: StopRequest) -> Board {
        let drops = names.iter().map(|_| Mutex::default()).collect();
        Board { names, drops, stop, end: AtomicBool::new(false) }
    }

    #[inline]
    fn is_ending(&self) -> bool {
        self.stop.is_asked() || self.end.load(Ordering::Relaxed)
    }

    fn post(&self, intake: usize, drops: CaptureDrops) {
        *self.drops[intake].lock().unwrap_or_else(PoisonError::into_inner) = drops;
    }

    /// The counts of each interface, its threads together.
    fn by_interface(&self) -> Vec<(&str, CaptureDrops)> {
        let mut sums: Vec<(&str, CaptureDrops)> = Vec::new();
        for (name, drops) in self.names.iter().zip(&self.drops) {
            let drops = *drops.lock().unwrap_or_else(PoisonError::into_inner);
            match sums.last_mut() {
                Some((last, sum)) if last == name => *sum = sum.plus(drops),
                _ => sums.push((name, drops)),
            }
        }
        sums
    }
}

/// The calling thread of a sensor: it starts the others and looks after them.
struct Supervisor<'a> {
    board: &'a Board,
    attendant: &'a mut dyn Attendant,
    statistics_interval: Duration,
    backend: &'a Backend,
}

impl Supervisor<'_> {
    /// Runs a capture thread for each intake; gives the intakes back, and what never got to them.
    fn run(
        &mut self,
        captures: &mut [LiveCapture],
        intakes: Vec<Intake>,
        logs: Vec<Option<FrameLog>>,
    ) -> Result<(Vec<Intake>, CaptureDrops), SensorError> {
        let board = self.board;
        thread::scope(|scope| {
            let mut threads: Vec<ScopedJoinHandle<'_, Intake>> = Vec::new();
            let mut failed = None;
            for (number, ((capture, intake), log)) in captures.iter_mut().zip(intakes).zip(logs).enumerate() {
                let name = format!("capture {}", capture.interface());
                let work = move || run_intake(board, number, capture, intake, log);
                match thread::Builder::new().name(name.clone()).spawn_scoped(scope, work) {
                    Ok(thread) => threads.push(thread),
                    Err(source) => {
                        failed = Some(PipelineError::Spawn { thread: name, source }.into());
                        break;
                    }
                }
            }
            if failed.is_none() {
                failed = self.attendant.started(self.backend.gauges()).err().map(SensorError::Attendant);
            }
            if failed.is_some() {
                board.end.store(true, Ordering::Relaxed);
            } else {
                let names: Vec<&str> = board.by_interface().iter().map(|one| one.0).collect();
                info!("capturing on {}", names.join(", "));
            }
            let mut drop_log = DropLog::default();
            let mut logged = Instant::now();
            while !board.is_ending() {
                thread::park_timeout(SUPERVISE_EVERY);
                let died = self.backend.is_broken() || threads.iter().any(ScopedJoinHandle::is_finished);
                if died || self.attendant.has_to_end() {
                    board.end.store(true, Ordering::Relaxed);
                }
                if logged.elapsed() >= self.statistics_interval {
                    drop_log.tell(board, logged.elapsed());
                    logged = Instant::now();
                }
            }
            self.attendant.ending();
            let mut ended = Vec::new();
            for (thread, name) in threads.into_iter().zip(&board.names) {
                match thread.join() {
                    Ok(intake) => ended.push(intake),
                    Err(_) => failed = Some(PipelineError::Died(format!("capture {name}")).into()),
                }
            }
            if let Some(error) = failed {
                return Err(error);
            }
            drop_log.tell(board, logged.elapsed());
            let none = CaptureDrops::default();
            let drops = board.by_interface().iter().fold(none, |sum, (_, drops)| sum.plus(*drops));
            Ok((ended, drops))
        })
    }
}

/// Tells what was dropped: one line an interval, and none where nothing was.
#[derive(Default)]
struct DropLog {
    told: Vec<CaptureDrops>,
}

impl DropLog {
    fn tell(&mut self, board: &Board, interval: Duration) {
        let now = board.by_interface();
        self.told.resize(now.len(), CaptureDrops::default());
        let mut words = Vec::new();
        for ((name, drops), told) in now.iter().zip(&mut self.told) {
            let new = drops.since(*told);
            *told = *drops;
            if new.dropped_by_kernel + new.dropped_by_interface > 0 {
                words.push(format!(
                    "{name} {} by the kernel's ring and {} by the interface, of {} received",
                    grouped(new.dropped_by_kernel),
                    grouped(new.dropped_by_interface),
                    grouped(new.received)
                ));
            }
        }
        if !words.is_empty() {
            warn!(
                "packets dropped in {:.0} s: {}; a larger ring (--buffer) holds more",
                interval.as_secs_f64(),
                words.join("; ")
            );
        }
    }
}

/// A capture thread: from one interface to one intake, until the end.
fn run_intake(
    board: &Board,
    number: usize,
    capture: &mut LiveCapture,
    mut intake: Intake,
    mut log: Option<FrameLog>,
) -> Intake {
    let mut quiet_link = QuietLink::default();
    let mut counted = Instant::now();
    while !board.is_ending() {
        let looked = Instant::now();
        let read = read(capture, &mut intake, &mut log);
        if looked.duration_since(counted) >= COUNT_EVERY {
            counted = looked;
            count(board, number, capture, &mut intake);
        }
        capture.look_after();
        if read < LOOK_EVERY {
            // The ring is empty.
            let clock = quiet_link.clock(intake.counts().metered(), intake.clock(), looked);
            intake.quiet(clock, looked);
            match read {
                0 => capture.wait(QUIET_WAIT),
                _ => capture.gather(GATHER),
            }
        }
    }
    capture.end();
    // If the door could not be shut, as was logged then, frames never cease: the ring's are read until the deadline.
    let deadline = Instant::now() + LAST_READ;
    while read(capture, &mut intake, &mut log) > 0 || !capture.is_over() {
        if Instant::now() >= deadline {
            warn!(
                "{}: frames that came after the end may be metered, others not be read",
                capture.interface()
            );
            break;
        }
        capture.wait(Duration::from_millis(10));
    }
    count(board, number, capture, &mut intake);
    debug!("capture thread {number} on {}: {} frames", capture.interface(), intake.counts().frames);
    intake
}

fn read(capture: &mut LiveCapture, intake: &mut Intake, log: &mut Option<FrameLog>) -> usize {
    let Some(log) = log else {
        return capture.read(LOOK_EVERY, |frame| intake.frame(frame));
    };
    let count = capture.read(LOOK_EVERY, |frame| {
        log.push(frame);
        intake.frame(frame);
    });
    log.flush();
    count
}

fn count(board: &Board, number: usize, capture: &mut LiveCapture, intake: &mut Intake) {
    let drops = capture.drops();
    intake.dropped(drops);
    board.post(number, drops);
}

/// The clock of a link on which nothing comes: it goes on by the monotonic time since the last metered packet, less
/// what packets may still take through the kernel.
#[derive(Default)]
struct QuietLink {
    metered: u64,
    since: Option<(Instant, Timestamp)>,
}

impl QuietLink {
    /// After so many metered packets, whose clock stands at `clock`. `looked`: when the read began that found no more.
    fn clock(&mut self, metered: u64, clock: Timestamp, looked: Instant) -> Option<Timestamp> {
        if metered == 0 {
            return None;
        }
        if metered != self.metered {
            self.metered = metered;
            self.since = Some((Instant::now(), clock));
        }
        let (since, clock) = self.since?;
        Some(clock.plus(looked.saturating_duration_since(since).saturating_sub(IN_FLIGHT)))
    }
}

/// A filter expression for what this host exports to `collectors`, and for what they answer.
///
/// It goes by the host's address and the collector's port, not by the local port: that is not known before the first
/// message, changes with every TCP session, and changing a filter on a busy interface loses packets uncounted. And
/// two flowtaps on one host would else meter each other's export of each other's export.
fn own_export(collectors: &[export::Destination]) -> String {
    let mut sides = Vec::new();
    for collector in collectors {
        let (protocol, Endpoint { host, port }) = match collector {
            export::Destination::IpfixUdp(endpoint)
            | export::Destination::NetFlow9Udp(endpoint)
            | export::Destination::NetFlow5Udp(endpoint) => ("udp", endpoint),
            export::Destination::IpfixTcp(endpoint) => ("tcp", endpoint),
            _ => continue,
        };
        let addresses = match (host.as_str(), *port).to_socket_addrs() {
            Ok(addresses) => addresses,
            Err(error) => {
                warn!(
                    "what is exported to {collector} will be metered if it passes here: resolving {host}: {error}"
                );
                continue;
            }
        };
        for address in addresses {
            let (there, back) = match local_address(address) {
                Some(local) => (format!("src host {local} and "), format!("dst host {local} and ")),
                None => Default::default(),
            };
            let ip = address.ip();
            sides.push(format!("({protocol} and {there}dst host {ip} and dst port {port})"));
            sides.push(format!("({protocol} and {back}src host {ip} and src port {port})"));
        }
    }
    sides.join(" or ")
}

/// The address that this host sends from to `to`.
fn local_address(to: SocketAddr) -> Option<IpAddr> {
    let any: SocketAddr = match to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(to).ok()?; // asks the routing table; nothing is sent
    Some(socket.local_addr().ok()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_of_a_quiet_link_goes_on_to_what_must_have_been_read_at_the_last_look() {
        let mut link = QuietLink::default();
        let (looked, packet) = (Instant::now(), Timestamp::EPOCH.plus(Duration::from_secs(100)));
        assert_eq!(link.clock(0, Timestamp::EPOCH, looked), None, "no packet, no clock");
        assert_eq!(link.clock(1, packet, looked), Some(packet), "it came after the look");
        const LATER: Duration = Duration::from_secs(3600);
        let clock = link.clock(1, packet, looked + LATER).unwrap();
        assert!(clock > packet, "however soon it is told");
        assert!(clock <= packet.plus(LATER - IN_FLIGHT), "{clock:?}");
    }

    #[test]
    fn own_export_is_told_by_both_ends_and_the_collectors_port() {
        let collectors: Vec<export::Destination> =
            ["ipfix+udp://127.0.0.1:4739", "ipfix+tcp://[::1]:4740", "csv:-"]
                .map(|to| to.parse().unwrap())
                .into();
        let filter = own_export(&collectors[..1]);
        assert_eq!(
            filter,
            "(udp and src host 127.0.0.1 and dst host 127.0.0.1 and dst port 4739) or \
             (udp and dst host 127.0.0.1 and src host 127.0.0.1 and src port 4739)"
        );
        assert!(own_export(&collectors[1..2]).starts_with("(tcp and "));
        assert_eq!(own_export(&collectors[2..]), "");
    }
}
