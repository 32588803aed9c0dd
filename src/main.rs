//! A run, in order: parse, configure, run the pipeline, report, exit status.
//!
//! Exit status: 0; 1 where an input was damaged or a destination failed; 2 for a usage error; 130 after Ctrl-C.

use std::error::Error;
use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::{CommandFactory, Parser};
use flowtap::capture::file::CaptureFiles;
use flowtap::capture::live::{LiveCapture, Reading};
use flowtap::cli::{Cli, Command, Summary};
use flowtap::config::{ConfigError, LiveConfig, MeterConfig, PrintConfig, ReadConfig};
use flowtap::export::{self, Exporter, text};
use flowtap::pipeline::{Destination, ExporterClock, Pipeline};
use flowtap::signal::{INTERRUPTED, StopRequest};
use flowtap::stats::{DestinationReport, RunReport};
use flowtap::{collect::Printer, progress::Progress};
use log::{info, warn};

/// Frames between two looks at what need not be looked at for each.
const LOOK_EVERY: u64 = 8192;
/// How long a quiet interface is waited for at a time.
const QUIET_WAIT: Duration = Duration::from_millis(100);
/// Packets may still be on their way through the kernel's ring for this long.
const IN_FLIGHT: Duration = Duration::from_millis(500);
/// How often the kernel's drop counts are asked for.
const DROPS_EVERY: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let cli = Cli::parse();
    start_log(cli.quiet, cli.verbose);
    let outcome = match cli.command {
        Command::Read(args) => check(ReadConfig::check(args)).and_then(|config| read(config, cli.quiet)),
        Command::Live(args) => check(LiveConfig::check(args)).and_then(|config| live(config, cli.quiet)),
        Command::Print(args) => check(PrintConfig::check(args)).and_then(print),
        Command::ListElements { markdown } => list_elements(markdown),
    };
    outcome.unwrap_or_else(|error| {
        complain(&chain(&*error));
        ExitCode::FAILURE
    })
}

type Outcome = Result<ExitCode, Box<dyn Error>>;

fn start_log(quiet: bool, verbose: u8) {
    let level = match (quiet, verbose) {
        (true, _) => "error",
        (_, 0) => "warn",
        (_, 1) => "info",
        (_, 2) => "debug",
        _ => "trace",
    };
    let mut log = env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(level));
    log.format(|line, record| {
        let level = record.level().as_str().to_ascii_lowercase();
        writeln!(line, "flowtap: {level}: {}", record.args())
    });
    log.init();
}

/// A refused flag ends the run with clap's words and its status for usage errors, 2.
fn check<T>(config: Result<T, ConfigError>) -> Result<T, Box<dyn Error>> {
    config.map_err(|error| usage_error(&error))
}

fn usage_error(error: &dyn Display) -> ! {
    Cli::command().error(clap::error::ErrorKind::ValueValidation, error.to_string()).exit()
}

fn complain(words: &str) {
    // Standard error may be closed; there is nobody left to tell.
    let _ = writeln!(std::io::stderr(), "flowtap: {words}");
}

/// An error and its causes, on one line.
fn chain(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !words.ends_with(&more) {
            words = format!("{words}: {more}");
        }
        cause = error.source();
    }
    words
}

fn read(mut config: ReadConfig, quiet: bool) -> Outcome {
    let stop = StopRequest::on_signals()?;
    config.file.stop = stop.flag();
    let mut files = match CaptureFiles::open(&config.files, &config.file) {
        Ok(files) => files,
        Err(error) => usage_error(&chain(&error)),
    };
    for note in files.notes() {
        warn!("{note}");
    }
    let mut run = Run::open(&config.meter);
    let Some(mut pipeline) = run.start(&config.meter)? else {
        return Ok(run.close(RunReport::default(), &config.meter, quiet));
    };
    let mut progress = Progress::new(!quiet && std::io::stderr().is_terminal(), files.octets_total());
    let mut look_at = LOOK_EVERY;
    while let Some(frames) = files.next_run() {
        pipeline.frames(frames);
        if stop.is_asked() || run.nobody_listens() {
            break;
        }
        if pipeline.counts().frames >= look_at {
            look_at = pipeline.counts().frames + LOOK_EVERY;
            progress.show(files.octets_read(), pipeline.counts().frames);
        }
    }
    progress.clear();
    let mut report = pipeline.finish()?;
    report.filtered = files.filtered();
    report.interrupted = stop.is_asked();
    for failure in files.failures() {
        report.damaged.push(chain(failure));
    }
    Ok(run.close(report, &config.meter, quiet))
}

fn live(config: LiveConfig, quiet: bool) -> Outcome {
    let stop = StopRequest::on_signals()?;
    let mut capture = match LiveCapture::open(&config.interface, &config.live) {
        Ok(capture) => capture,
        Err(error @ flowtap::capture::live::LiveError::Filter { .. }) => usage_error(&error),
        Err(error) => return Err(error.into()),
    };
    let mut run = Run::open(&config.meter);
    let Some(mut pipeline) = run.start(&config.meter)? else {
        return Ok(run.close(RunReport::default(), &config.meter, quiet));
    };
    info!("capturing on {}", config.interface);
    let mut quiet_link = QuietLink::default();
    let mut drops_asked = Instant::now();
    let mut until_look = LOOK_EVERY;
    let mut gone = None;
    loop {
        match capture.next_frame() {
            Ok(Reading::Frame(frame)) => {
                pipeline.frames(std::iter::once(frame));
                until_look -= 1;
                if until_look > 0 {
                    continue;
                }
            }
            Ok(Reading::Nothing) => {
                pipeline.quiet(quiet_link.clock(&pipeline));
                capture.wait(QUIET_WAIT);
            }
            Err(error) => {
                gone = Some(chain(&error));
                break;
            }
        }
        until_look = LOOK_EVERY;
        if stop.is_asked() || run.nobody_listens() {
            break;
        }
        if drops_asked.elapsed() >= DROPS_EVERY {
            drops_asked = Instant::now();
            let drops = capture.drops();
            pipeline.dropped(drops);
        }
    }
    let drops = capture.drops();
    pipeline.dropped(drops);
    let mut report = pipeline.finish()?;
    report.capture = Some(drops);
    report.interrupted = stop.is_asked();
    report.damaged.extend(gone);
    Ok(run.close(report, &config.meter, quiet))
}

/// The clock of a link on which nothing comes: it goes on by the monotonic time since the last metered packet, less what
/// packets may still take through the kernel.
#[derive(Default)]
struct QuietLink {
    metered: u64,
    since: Option<(Instant, flowtap::time::Timestamp)>,
}

impl QuietLink {
    fn clock(&mut self, pipeline: &Pipeline) -> Option<flowtap::time::Timestamp> {
        let metered = pipeline.counts().metered();
        if metered == 0 {
            return None;
        }
        if metered != self.metered {
            self.metered = metered;
            self.since = Some((Instant::now(), pipeline.clock()));
        }
        self.since.map(|(since, clock)| clock.plus(since.elapsed().saturating_sub(IN_FLIGHT)))
    }
}

/// The destinations of a run, and what could not be opened.
struct Run {
    destinations: Vec<Destination>,
    failed: Vec<DestinationReport>,
    /// Raised by text destinations whose reader has gone.
    pipes: Vec<Arc<AtomicBool>>,
    only_pipes: bool,
}

impl Run {
    fn open(config: &MeterConfig) -> Run {
        let mut run =
            Run { destinations: Vec::new(), failed: Vec::new(), pipes: Vec::new(), only_pipes: true };
        for destination in &config.destinations {
            let name = destination.to_string();
            match run.exporter(destination, config) {
                Ok(exporter) => {
                    let wall = config.pipeline.live || destination.is_ipfix_over_network();
                    let clock = if wall { ExporterClock::Wall } else { ExporterClock::Packet };
                    run.destinations.push(Destination { name, exporter, clock });
                }
                Err(error) => run.failed.push(DestinationReport {
                    destination: name,
                    delivery: export::Delivery::default(),
                    failure: Some(chain(&*error)),
                }),
            }
        }
        run
    }

    fn exporter(
        &mut self,
        destination: &export::Destination,
        config: &MeterConfig,
    ) -> Result<Box<dyn Exporter>, Box<dyn Error>> {
        let Some((format, path)) = destination.text() else {
            self.only_pipes = false;
            return Ok(export::open(destination, &config.export)?);
        };
        let exporter = text::open(format, path, &config.text)?;
        self.pipes.push(exporter.pipe_closed());
        Ok(Box::new(exporter))
    }

    /// Starts the pipeline; not if there is nowhere for the records to go.
    fn start(&mut self, config: &MeterConfig) -> Result<Option<Pipeline>, Box<dyn Error>> {
        if self.destinations.is_empty() {
            return Ok(None);
        }
        Ok(Some(Pipeline::start(config.pipeline, std::mem::take(&mut self.destinations))?))
    }

    /// Whether every record would go to a pipe that nobody reads any more.
    fn nobody_listens(&self) -> bool {
        self.only_pipes && self.pipes.iter().all(|closed| closed.load(Ordering::Relaxed))
    }

    /// Prints what went wrong and the report; gives the exit status.
    fn close(self, mut report: RunReport, config: &MeterConfig, quiet: bool) -> ExitCode {
        report.destinations.extend(self.failed);
        for damaged in &report.damaged {
            complain(damaged);
        }
        for destination in &report.destinations {
            if let Some(failure) = &destination.failure {
                complain(failure);
            }
        }
        let mut stderr = std::io::stderr();
        let _ = match config.summary {
            Summary::Text if !quiet => write!(stderr, "{}", report.to_text()),
            Summary::Json => writeln!(stderr, "{}", report.to_json()),
            Summary::Text | Summary::None => Ok(()),
        };
        if report.interrupted {
            ExitCode::from(INTERRUPTED as u8)
        } else if report.is_clean() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

fn print(config: PrintConfig) -> Outcome {
    let Some((format, path)) = config.to.text() else { unreachable!("the configuration admits text only") };
    let mut printer = Printer::open(format, path, &config.text)?;
    let mut clean = true;
    for path in &config.files {
        if let Err(error) = printer.print(path) {
            complain(&chain(&error));
            clean = false;
        }
        if printer.pipe_closed().load(Ordering::Relaxed) {
            break;
        }
    }
    printer.finish();
    if let Some(failure) = printer.failure() {
        complain(failure);
        clean = false;
    }
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn list_elements(markdown: bool) -> Outcome {
    let text = export::list_elements(markdown);
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}
