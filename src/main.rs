//! A run, in order: parse, configure, run the pipeline, report, exit status.
//!
//! Exit status: 0; 1 where an input was damaged or a destination failed; 2 for a usage error; 130 where a
//! signal kept `read` from its end, which for `live` is the way to end.

use std::error::Error;
use std::ffi::OsString;
use std::fmt::Display;
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{CommandFactory, Parser};
use flowtap::capture::file::{CaptureFiles, left_out};
use flowtap::capture::live::{LiveError, interfaces};
use flowtap::cli::{Cli, Command, Generated, Summary};
use flowtap::collect::print::{Printer, files_in};
use flowtap::config::{ConfigError, LiveConfig, MeterConfig, PrintConfig, ReadConfig, check_files};
use flowtap::export::destination::STANDARD_OUTPUT;
use flowtap::export::fifo::wait_for_reader;
use flowtap::export::text::{self, TextFormat};
use flowtap::export::{self, Exporter, Tally};
use flowtap::gauges::Gauges;
use flowtap::generated;
use flowtap::host::{self, Host, log_file};
use flowtap::pipeline::{Destination, ExporterClock, Layout, Pipeline, PipelineError};
use flowtap::printable::{printable, printable_lines};
use flowtap::progress::Progress;
use flowtap::reading;
use flowtap::sensor::{Attendant, Sensor, SensorError};
use flowtap::settings::{self, Arguments};
use flowtap::signal::{INTERRUPTED, Request, Requests, StopRequest};
use flowtap::stats::{DestinationReport, RunReport, plural};
use log::{error, info, warn};

fn main() -> ExitCode {
    let mut usage = Usage::default();
    usage.given = match Arguments::gather(std::env::args_os().collect(), &Cli::command()) {
        Ok(given) => given,
        Err(error) => usage.refuse(&error),
    };
    let cli = Cli::parse_from(&usage.given.words);
    usage.check(check_files(&cli));
    if let Err(error) = log_file::start(log_level(cli.quiet, cli.verbose), cli.log_file.as_deref()) {
        let path = cli.log_file.unwrap_or_default();
        usage.refuse(&format!("--log-file: opening {}: {error}", path.display()));
    }
    let outcome = match cli.command {
        Command::Read(args) => {
            let config = usage.check(ReadConfig::check(args));
            let summary = config.meter.summary;
            summed_up(read(config, cli.quiet, &usage), summary)
        }
        Command::Live(args) => {
            let mut config = usage.check(LiveConfig::check(args));
            config.host.writes.extend(cli.log_file);
            let summary = config.meter.summary;
            summed_up(live(config, cli.quiet, &usage), summary)
        }
        Command::Interfaces => interfaces(),
        Command::Print(args) => print(usage.check(PrintConfig::check(args))),
        Command::CheckConfig { file } => check_config(&file),
        Command::SelfTest { user, inside } => self_test(user.as_deref(), inside.as_deref()),
        Command::Generate { what, folder } => generate(what, &folder),
        Command::ListElements { markdown } => list_elements(markdown),
    };
    outcome.unwrap_or_else(|error| {
        complain(&chain(&*error));
        ExitCode::FAILURE
    })
}

type Outcome = Result<ExitCode, Box<dyn Error>>;

fn log_level(quiet: bool, verbose: u8) -> &'static str {
    match (quiet, verbose) {
        (true, _) => "error",
        (_, 0) => "warn",
        (_, 1) => "info",
        (_, 2) => "debug",
        _ => "trace",
    }
}

/// What was asked for, and how it is refused: in clap's words, with its status for usage errors, 2.
#[derive(Default)]
struct Usage {
    given: Arguments,
}

impl Usage {
    fn check<T>(&self, config: Result<T, ConfigError>) -> T {
        config.unwrap_or_else(|error| self.refuse(&self.given.place(&error.to_string())))
    }

    fn refuse(&self, error: &dyn Display) -> ! {
        let typed: Vec<OsString> = std::env::args_os().collect();
        let subcommand = settings::subcommand(&typed, &Cli::command());
        let mut whole = Cli::command();
        whole.build();
        let named = subcommand.and_then(|name| whole.find_subcommand(name).cloned());
        let words = printable_lines(&error.to_string()).into_owned();
        named.unwrap_or(whole).error(clap::error::ErrorKind::ValueValidation, words).exit()
    }
}

fn complain(words: &str) {
    // Standard error may be closed; there is nobody left to tell.
    let _ = writeln!(std::io::stderr(), "{}{}", log_file::error_prefix(), printable(words));
}

/// A run that failed ends standard error with its summary, too, where that is for a program.
fn summed_up(outcome: Outcome, summary: Summary) -> Outcome {
    match outcome {
        Err(error) if summary == Summary::Json => {
            let failure = chain(&*error);
            complain(&failure);
            let report = RunReport { failure: Some(failure), ..RunReport::default() };
            let _ = writeln!(std::io::stderr(), "{}", report.to_json());
            Ok(ExitCode::FAILURE)
        }
        outcome => outcome,
    }
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

fn read(mut config: ReadConfig, quiet: bool, usage: &Usage) -> Outcome {
    let stop = StopRequest::on_signals()?;
    config.file.stop = stop.flag();
    let mut requests = Requests::on_signals(&stop)?;
    let mut files = match CaptureFiles::open(&config.files, &config.file) {
        Ok(files) => files,
        Err(error) => usage.refuse(&chain(&error)),
    };
    for note in files.notes() {
        warn!("{note}");
    }
    let fifos = wait_for_readers(written(&config.meter), &stop, &mut requests);
    if stop.is_asked() {
        let report = RunReport { interrupted: true, ..RunReport::default() };
        return Ok(Run::of_nothing().close(report, &config.meter, quiet));
    }
    let mut run = Run::open(&config.meter);
    drop(fifos);
    let mut pipeline = run.start(&config.meter, &files)?;
    answer(requests, pipeline.gauges())?;
    let mut progress = Progress::new(!quiet && std::io::stderr().is_terminal(), files.octets_total());
    let has_to_end = || stop.is_asked() || run.nobody_listens();
    reading::read_all(&mut files, &mut pipeline, has_to_end, |files, pipeline| {
        progress.show(files.octets_read(), pipeline.counts().frames, || pipeline.gauges().flows());
    });
    progress.clear();
    let mut report = pipeline.finish()?;
    report.filtered = files.filtered();
    report.interrupted = stop.is_asked();
    for failure in files.failures() {
        report.damaged.push(chain(failure));
    }
    Ok(run.close(report, &config.meter, quiet))
}

fn live(config: LiveConfig, quiet: bool, usage: &Usage) -> Outcome {
    let stop = StopRequest::on_signals()?;
    let mut requests = Requests::on_signals(&stop)?;
    let mut host = Host::prepare(config.host)?;
    // Before the capture is opened, whose ring would overflow meanwhile.
    let paths = written(&config.meter).chain(config.sensor.write.as_ref());
    let fifos = wait_for_readers(paths, &stop, &mut requests);
    if stop.is_asked() {
        return Ok(Run::of_nothing().close(RunReport::default(), &config.meter, quiet));
    }
    let sensor = match Sensor::open(&config.sensor) {
        Ok(sensor) => sensor,
        Err(SensorError::Live(error @ LiveError::Filter { .. })) => usage.refuse(&error),
        Err(error) => return Err(error.into()),
    };
    let mut run = Run::open(&config.meter);
    drop(fifos);
    host.confine()?;
    if run.destinations.is_empty() || stop.is_asked() {
        return Ok(run.close(RunReport::default(), &config.meter, quiet));
    }
    let destinations = std::mem::take(&mut run.destinations);
    let interfaces = config.sensor.interfaces.join(", ");
    let greets = !quiet && std::io::stderr().is_terminal();
    let mut watch =
        Watch { run: &run, interfaces, greets, requests: Some(requests), host: Some(host), running: None };
    let report = sensor.run(config.meter.pipeline, destinations, &stop, &mut watch)?;
    // A signal is how a sensor ends: no interruption.
    Ok(run.close(report, &config.meter, quiet))
}

/// What goes on around a sensor.
struct Watch<'a> {
    run: &'a Run,
    interfaces: String,
    /// Whether to say on standard error that it captures: on a terminal nothing else might be seen for long.
    greets: bool,
    requests: Option<Requests>,
    host: Option<Host>,
    running: Option<host::Running>,
}

impl Attendant for Watch<'_> {
    fn started(&mut self, gauges: &Arc<Gauges>) -> Result<(), Box<dyn Error>> {
        if let Some(requests) = self.requests.take() {
            answer(requests, gauges)?;
        }
        if let Some(host) = self.host.take() {
            let running = host.start(gauges)?;
            running.ready(&format!("capturing on {}", self.interfaces));
            // A log that tells more says so itself.
            if self.greets && !log::log_enabled!(log::Level::Info) {
                let interfaces = printable(&self.interfaces);
                let _ = writeln!(std::io::stderr(), "flowtap: capturing on {interfaces}, Ctrl-C ends it");
            }
            self.running = Some(running);
        }
        Ok(())
    }

    fn has_to_end(&self) -> bool {
        self.run.nobody_listens()
    }

    fn ending(&mut self) {
        if let Some(running) = &self.running {
            running.stopping();
        }
    }
}

fn interfaces() -> Outcome {
    let text = interfaces::table(&interfaces::list()?);
    print_out(&printable_lines(&text))
}

/// The paths that records are written to.
fn written(config: &MeterConfig) -> impl Iterator<Item = &PathBuf> {
    config.destinations.iter().filter_map(export::Destination::path)
}

/// Waits until each of these that is a FIFO has a reader, or `stop` is asked, and gives the FIFOs, to be kept until they are
/// open. Of the files that are written only the log is open by then.
fn wait_for_readers<'a>(
    paths: impl Iterator<Item = &'a PathBuf>,
    stop: &StopRequest,
    requests: &mut Requests,
) -> Vec<File> {
    let wait = |path: &PathBuf| {
        wait_for_reader(path, || {
            requests.look(|request| match request {
                Request::Reopen => reopen_log(),
                Request::Summary => {
                    info!(target: log_file::SUMMARY, "waiting for a reader of {}", path.display());
                }
            });
            stop.is_asked()
        })
    };
    paths.filter(|path| path.as_os_str() != STANDARD_OUTPUT).filter_map(wait).collect()
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
    fn of_nothing() -> Run {
        Run { destinations: Vec::new(), failed: Vec::new(), pipes: Vec::new(), only_pipes: true }
    }

    /// Opens the destinations, in order.
    fn open(config: &MeterConfig) -> Run {
        let mut run = Run::of_nothing();
        for destination in &config.destinations {
            let name = destination.to_string();
            match run.exporter(destination, config) {
                Ok(exporter) => {
                    let wall = config.pipeline.live || destination.is_ipfix_over_network();
                    let clock = if wall { ExporterClock::Wall } else { ExporterClock::Packet };
                    run.destinations.push(Destination { name, exporter, clock });
                }
                Err(error) => {
                    let failure = chain(&*error);
                    error!("{failure}");
                    run.failed.push(DestinationReport {
                        destination: name,
                        delivery: export::Delivery::default(),
                        failure: Some(failure),
                    });
                }
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

    /// Starts the pipeline; also where no destination could be opened, as with collectors that cannot be reached.
    fn start(&mut self, config: &MeterConfig, files: &CaptureFiles) -> Result<Pipeline, PipelineError> {
        let has_others = config.pipeline.layout != Layout::Inline;
        let upcoming = has_others.then(|| files.upcoming());
        Pipeline::start(config.pipeline, std::mem::take(&mut self.destinations), upcoming)
    }

    /// Whether every record would go to a pipe that nobody reads any more.
    fn nobody_listens(&self) -> bool {
        self.only_pipes
            && !self.pipes.is_empty()
            && self.pipes.iter().all(|closed| closed.load(Ordering::Relaxed))
    }

    /// Prints what went wrong and the report; gives the exit status.
    fn close(self, mut report: RunReport, config: &MeterConfig, quiet: bool) -> ExitCode {
        // What would have gone to a destination that could not be opened is lost.
        let lost = Tally {
            records: report.records.records,
            packets: report.records.packets,
            octets: report.records.octets,
        };
        report.destinations.extend(self.failed.into_iter().map(|mut failed| {
            failed.delivery.lost = lost;
            failed
        }));
        // What fails while it runs was logged then: destinations, and what `live` writes. What `read` could not read was not.
        let logged = log_file::errors_are_on_standard_error();
        if !(logged && config.pipeline.live) {
            for damaged in &report.damaged {
                complain(damaged);
            }
        }
        if !logged {
            for failure in report.destinations.iter().filter_map(|one| one.failure.as_ref()) {
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
    let mut files = Vec::new();
    for path in config.files {
        if path.as_os_str() == "-" || !path.is_dir() {
            files.push(path);
            continue;
        }
        let place = path.display();
        match files_in(&path) {
            Ok((found, others)) => {
                for note in left_out(&path, "no IPFIX file", &others) {
                    warn!("{note}");
                }
                if found.is_empty() {
                    complain(&format!("{place}: no IPFIX files in this folder"));
                    clean = false;
                }
                files.extend(found);
            }
            Err(error) => {
                complain(&chain(&error));
                clean = false;
            }
        }
    }
    for path in &files {
        if let Err(error) = printer.print(path) {
            complain(&chain(&error));
            clean = false;
        }
        if printer.pipe_closed().load(Ordering::Relaxed) {
            break;
        }
    }
    // A table that says "No flows" under the reasons why nothing could be read would say too much.
    if clean || printer.counts().messages > 0 || format != TextFormat::Table {
        printer.finish();
    }
    let (not_flows, skipped) = (printer.not_flows(), printer.counts().skipped_sets);
    if not_flows > 0 {
        warn!("{not_flows} records are not of flows and are not shown; --to json:- shows every record");
    }
    if skipped > 0 {
        let plural = plural(skipped);
        warn!("{skipped} set{plural} skipped: of no template in the file, or of a reserved id");
    }
    if let Some(failure) = printer.failure() {
        if !log_file::errors_are_on_standard_error() {
            complain(failure);
        }
        clean = false;
    }
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Answers SIGHUP and SIGUSR1 from here on.
fn answer(requests: Requests, gauges: &Arc<Gauges>) -> std::io::Result<()> {
    let gauges = Arc::clone(gauges);
    requests.serve(move |request| match request {
        Request::Reopen => {
            gauges.ask_reopen();
            reopen_log();
            info!("opening files again");
        }
        Request::Summary => info!(target: log_file::SUMMARY, "{}", host::summary(&gauges)),
    })
}

fn reopen_log() {
    if let Err(error) = log_file::reopen() {
        warn!("opening the log file again, the old one stays in use: {error}");
    }
}

fn self_test(user: Option<&str>, inside: Option<&Path>) -> Outcome {
    if let Some(folder) = inside {
        host::self_test::inside(user, folder)?;
        return Ok(ExitCode::SUCCESS);
    }
    let outcome = host::self_test::run(user, &std::env::temp_dir())?;
    write!(std::io::stdout(), "{outcome}")?;
    Ok(if outcome.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn generate(what: Generated, folder: &Path) -> Outcome {
    let command = Cli::command();
    match what {
        Generated::Man => generated::man_pages(command, folder)?,
        Generated::Completions => generated::completions(command, folder)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn check_config(file: &Path) -> Outcome {
    let words = settings::words_to_check(file.as_os_str());
    let mut usage = Usage::default();
    let given = match Arguments::gather(words.clone(), &Cli::command()) {
        Ok(given) => given,
        Err(error) => usage.refuse(&error),
    };
    let mut cli = Cli::try_parse_from(&given.words);
    if cli.as_ref().is_err_and(|error| error.kind() == clap::error::ErrorKind::MissingRequiredArgument) {
        // Which interface is often said on the command line: a unit template does.
        cli = Cli::try_parse_from(given.words.iter().cloned().chain(["--interface".into(), "any".into()]));
    }
    let cli = cli.unwrap_or_else(|error| error.exit());
    let keys = given.keys();
    usage.given = given;
    usage.check(check_files(&cli));
    let Command::Live(args) = cli.command else { unreachable!("the words say live") };
    let destinations = match args.meter.to.len() {
        0 => "no destination, so a table on standard output".to_string(),
        number => format!("{number} destination{}", plural(number as u64)),
    };
    let config = usage.check(LiveConfig::check(args));
    if let Err(error) = config.check_host(cli.log_file.as_deref()) {
        usage.refuse(&usage.given.place(&chain(&*error)));
    }
    let place = file.display().to_string();
    print_out(&format!("{}: {keys} key{}, {destinations}\n", printable(&place), plural(keys as u64)))
}

fn list_elements(markdown: bool) -> Outcome {
    print_out(&export::list_elements(markdown))
}

fn print_out(text: &str) -> Outcome {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}
