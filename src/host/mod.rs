//! Living on a host: what a sensor does besides measuring, so that it can be left alone for months.
//!
//! In: the [`Gauges`] of a run, the environment a service manager gives, signals. Out: readiness and watchdog pings
//! ([`notify`]), the state of each thread ([`health`]), metrics and status ([`metrics`]) over [`http`], a log that fits where it
//! goes ([`log_file`]), and a process that holds no right it does not need ([`sandbox`]).
//!
//! The order matters: [`Host::prepare`] opens the sockets, then the capture and the files are opened, then
//! [`Host::confine`] gives the rights away while there is one thread, and [`Host::start`] starts threads, which inherit
//! that.

pub mod health;
pub mod http;
pub mod log_file;
pub mod metrics;
pub mod notify;
pub mod sandbox;
pub mod self_test;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use log::{info, warn};
use thiserror::Error;

use crate::gauges::Gauges;
use crate::host::health::Health;
use crate::host::http::Serving;
use crate::host::notify::Notify;
use crate::host::sandbox::{Held, Sandbox, SandboxError};

/// How often the threads' beats are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// The settings of all this.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostOptions {
    /// Where metrics and status are served; not at all without.
    pub metrics: Option<SocketAddr>,
    /// The user to become.
    pub user: Option<String>,
    /// Whether to give away the rights that are not needed.
    pub sandbox: bool,
    /// Files that are written: they may be made again in their folders.
    pub writes: Vec<PathBuf>,
    /// TCP ports that collectors listen on.
    pub connects: Vec<u16>,
    /// Whether an interface may have to be opened again.
    pub reopens_interface: bool,
}

/// Why a process cannot live on this host.
#[derive(Debug, Error)]
pub enum HostError {
    /// The metrics cannot be served.
    #[error("--metrics: listening on {address}")]
    Metrics {
        /// Where.
        address: SocketAddr,
        /// The system's word.
        source: io::Error,
    },
    /// The service manager cannot be told.
    #[error("connecting to the service manager by $NOTIFY_SOCKET")]
    Notify(#[source] io::Error),
    /// Rights could not be given away.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// A thread could not be started.
    #[error("starting the {0} thread")]
    Spawn(&'static str, #[source] io::Error),
}

/// What is open and not yet at work.
pub struct Host {
    options: HostOptions,
    notify: Notify,
    listener: Option<TcpListener>,
    held: Option<Held>,
}

/// What is at work. The metrics are served until it is dropped.
pub struct Running {
    notify: Arc<Notify>,
    _metrics: Option<Serving>,
}

impl Host {
    /// Opens the sockets.
    ///
    /// # Errors
    /// When one cannot be opened.
    pub fn prepare(options: HostOptions) -> Result<Host, HostError> {
        let notify = Notify::from_environment().map_err(HostError::Notify)?;
        let listener = match options.metrics {
            None => None,
            Some(address) => {
                Some(TcpListener::bind(address).map_err(|source| HostError::Metrics { address, source })?)
            }
        };
        if let Some(Ok(address)) = listener.as_ref().map(TcpListener::local_addr) {
            info!("metrics at http://{address}/metrics, status at http://{address}/status");
            if !address.ip().is_loopback() {
                warn!("the metrics can be read by whoever reaches {address}: there is no login");
            }
        }
        Ok(Host { options, notify, listener, held: None })
    }

    /// Gives away all rights that are not needed, unless that is switched off. To be called when all is open, and
    /// while the process has one thread.
    ///
    /// # Errors
    /// When the user cannot be become, or a right that must go stays. What the kernel does not know is logged only.
    pub fn confine(&mut self) -> Result<(), HostError> {
        if !self.options.sandbox {
            warn!("--sandbox no: all rights of the user who started it are kept");
            return Ok(());
        }
        let held = Sandbox {
            user: self.options.user.as_deref(),
            writes: &self.options.writes,
            connects: &self.options.connects,
            reopens_interface: self.options.reopens_interface,
        }
        .enter()?;
        info!("{held}");
        self.held = Some(held);
        Ok(())
    }

    /// Starts what watches the threads and what answers for them.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(self, gauges: &Arc<Gauges>) -> Result<Running, HostError> {
        let health = Arc::new(Health::new(gauges));
        let rights = self.held.as_ref().map(Held::to_string);
        let serve = |listener| metrics::serve(listener, Arc::clone(gauges), Arc::clone(&health), rights);
        let metrics =
            self.listener.map(serve).transpose().map_err(|source| HostError::Spawn("metrics", source))?;
        let notify = Arc::new(self.notify);
        let (watched, pings) = (Arc::clone(gauges), Arc::clone(&notify));
        thread::Builder::new()
            .name("watch".to_string())
            .spawn(move || {
                loop {
                    let healthy = health.look(&watched);
                    pings.watchdog(healthy);
                    thread::sleep(LOOK.min(pings.interval()));
                }
            })
            .map_err(|source| HostError::Spawn("watch", source))?;
        Ok(Running { notify, _metrics: metrics })
    }
}

impl Running {
    /// Says that capture runs.
    pub fn ready(&self, words: &str) {
        self.notify.ready(words);
    }

    /// Says that the end has begun.
    pub fn stopping(&self) {
        self.notify.stopping();
    }
}

/// The counts so far on one line, for the log.
pub fn summary(gauges: &Gauges) -> String {
    use crate::stats::grouped;

    let intake = gauges.intake();
    let records = gauges.records();
    let live: u64 = gauges.shards.iter().map(|shard| shard.read().live).sum();
    let mut words = format!(
        "up {} s: {} frames, {} metered, {} ignored, {} dropped; {} live flows, {} records",
        gauges.began.elapsed().as_secs(),
        grouped(intake.frames),
        grouped(intake.metered),
        grouped(intake.ignored.iter().sum()),
        grouped(intake.capture.dropped_by_kernel + intake.capture.dropped_by_interface),
        grouped(live),
        grouped(records.records),
    );
    for (name, exporter) in &gauges.exporters {
        let delivery = exporter.read().delivery;
        let (sent, lost) = (grouped(delivery.sent.records), grouped(delivery.lost.records));
        words.push_str(&format!("; {name} {sent} sent, {lost} lost"));
    }
    words
}
