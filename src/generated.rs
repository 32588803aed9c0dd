//! What is made of the flags' definition and packed beside the program: man pages and shell completions.
//!
//! A hidden subcommand writes them into `packaging/`, where they are kept: a build script would have every build make
//! what changes with the flags only. A test holds the kept ones against the flags.
//!
//! A page has the order of man-pages(7). What no flag says (exit status, signals, files) stands here.

use std::io::{self, Write};
use std::path::Path;

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

const MANUAL: &str = "flowtap manual";

/// Of a section, what is said of each: a status, a signal, a path.
type Items = &'static [(&'static str, &'static str)];

const DONE: (&str, &str) = ("0", "All went well.");
const USAGE: (&str, &str) =
    ("2", "A usage error: a flag, or a key of the configuration file, is not allowed as it stands.");
const DAMAGED: (&str, &str) = (
    "1",
    "An input was damaged or a destination failed; everything else was read and exported all the same. Or the run \
     could not begin.",
);
const HANGUP: (&str, &str) = (
    "SIGHUP",
    "Opens the log file and the destinations that are files again, for what rotates them. A process that runs in a \
     terminal has lost it then, and ends as with SIGTERM.",
);
const USER: (&str, &str) = ("SIGUSR1", "Logs a summary so far.");
const SETTINGS: (&str, &str) =
    ("/etc/flowtap/flowtap.toml", "The settings of the service flowtap@INTERFACE.service.");
const OWN_SETTINGS: (&str, &str) =
    ("/etc/flowtap/INTERFACE.toml", "If it is there, read in place of it for this interface.");

fn exit_status(page: &str) -> Items {
    match page {
        "flowtap-read" => &[
            DONE,
            DAMAGED,
            USAGE,
            ("130", "SIGINT or SIGTERM kept it from the end of its input; what was metered was exported."),
        ],
        "flowtap-live" => &[("0", "A signal ended it, which is the way to end it."), DAMAGED, USAGE],
        "flowtap-print" => &[
            DONE,
            (
                "1",
                "A file could not be read to its end, or what was read not be written; the rest was shown.",
            ),
            USAGE,
        ],
        "flowtap-check-config" => &[("0", "`live` would take the file."), ("2", "It would not.")],
        "flowtap-self-test" => &[
            ("0", "All that must be denied was denied."),
            ("1", "Something was not, or the sandbox could not be entered."),
            USAGE,
        ],
        "flowtap" => &[
            DONE,
            DAMAGED,
            USAGE,
            (
                "130",
                "SIGINT or SIGTERM kept `read` from the end of its input; for `live` they are the way to end.",
            ),
        ],
        _ => &[DONE, ("1", "The system did not give what was to be shown."), USAGE],
    }
}

fn signals(page: &str) -> Items {
    match page {
        "flowtap-read" => &[
            (
                "SIGINT, SIGTERM",
                "The first ends reading, exports what was metered and exits with 130; a second one ends the process at \
                 once.",
            ),
            HANGUP,
            USER,
        ],
        "flowtap-live" => &[
            (
                "SIGINT, SIGTERM",
                "The first ends capture, meters what is in the kernel's ring, exports all flows and exits with 0; a \
                 second one ends the process at once.",
            ),
            HANGUP,
            USER,
        ],
        _ => &[],
    }
}

fn files(page: &str) -> Items {
    match page {
        "flowtap" | "flowtap-live" => &[
            SETTINGS,
            OWN_SETTINGS,
            ("/var/lib/flowtap, /var/log/flowtap", "Where the service may write records and its log."),
            ("/usr/share/doc/flowtap/examples/flowtap.toml", "Every key, with its default."),
        ],
        "flowtap-check-config" => &[SETTINGS, OWN_SETTINGS],
        _ => &[],
    }
}

/// Pages of other programs.
fn others(page: &str) -> &'static [&'static str] {
    match page {
        "flowtap-read" => &["pcap-filter(7)"],
        "flowtap-live" => &["pcap-filter(7)", "capabilities(7)", "systemctl(1)"],
        _ => &[],
    }
}

/// Writes a man page for each subcommand and one for all of them (`flowtap.1`, `flowtap-live.1`, …).
///
/// # Errors
/// When a page cannot be written.
pub fn man_pages(command: Command, folder: &Path) -> io::Result<()> {
    // The help shows what suits this terminal; the page must be the same everywhere.
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let commands: Vec<&Command> = std::iter::once(&command)
        .chain(command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()))
        .collect();
    let name = |command: &Command| command.get_display_name().unwrap_or(command.get_name()).to_string();
    let pages: Vec<String> = commands.iter().map(|command| name(command)).collect();
    let source = format!("flowtap {}", command.get_version().unwrap_or_default());
    for (command, page) in commands.into_iter().zip(&pages) {
        let mut text = Vec::new();
        man_page(command, page, &pages, &source, &mut text)?;
        std::fs::write(folder.join(format!("{page}.1")), text)?;
    }
    Ok(())
}

fn man_page(
    command: &Command,
    page: &str,
    pages: &[String],
    source: &str,
    out: &mut dyn Write,
) -> io::Result<()> {
    let man = Man::new(command.clone()).source(source).manual(MANUAL);
    man.render_title(out)?;
    man.render_name_section(out)?;
    man.render_synopsis_section(out)?;
    man.render_description_section(out)?;
    man.render_options_section(out)?;
    if command.has_subcommands() {
        man.render_subcommands_section(out)?;
    }
    for (title, items) in
        [("EXIT STATUS", exit_status(page)), ("SIGNALS", signals(page)), ("FILES", files(page))]
    {
        if !items.is_empty() {
            writeln!(out, ".SH \"{title}\"")?;
        }
        for (term, words) in items {
            writeln!(out, ".TP\n\\fB{}\\fR\n{}", roff(term), roff(words))?;
        }
    }
    if let Some(examples) = command.get_after_help() {
        let examples = examples.to_string();
        writeln!(out, ".SH EXAMPLES\n.nf")?;
        for line in examples.lines().filter(|line| line.starts_with(' ')) {
            writeln!(out, "{}", roff(line))?;
        }
        writeln!(out, ".fi")?;
    }
    let related = pages.iter().filter(|other| *other != page).map(|other| format!("{other}(1)"));
    let related: Vec<String> = related.chain(others(page).iter().map(ToString::to_string)).collect();
    writeln!(out, ".SH \"SEE ALSO\"\n{}", roff(&related.join(", ")))
}

/// A line of text that does not begin with what roff takes for a request.
fn roff(line: &str) -> String {
    line.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq")
}

/// Writes the completions for bash, zsh and fish.
///
/// # Errors
/// When one cannot be written.
pub fn completions(mut command: Command, folder: &Path) -> io::Result<()> {
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command, "flowtap", folder)?;
    }
    Ok(())
}
