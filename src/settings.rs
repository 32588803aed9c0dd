//! The configuration file: a TOML file in; the command line it stands for out.
//!
//! Every long flag of the subcommand is a key of the file, spelled the same without its dashes. A key is turned into
//! its flag and put before the user's own, so that names, units, checks and help exist once, in [`crate::cli`] and
//! [`crate::config`]; a second definition (a struct to deserialize into) would drift. A flag that the user gave makes
//! its key, and the keys it conflicts with, go unread. What the file says wrong is refused with file and line, all of it
//! at once.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use thiserror::Error;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::ConfigError;

/// The flag that names the file; the only long flag that is no key.
const CONFIG: &str = "config";
/// Octets of the longest file that is read: far more than all keys take. What never ends, such as a device, would fill the
/// memory.
const LONGEST_FILE: u64 = 1 << 20;

/// Why a configuration file is refused.
#[derive(Debug, Error)]
pub enum SettingsError {
    /// None of the files can be read.
    #[error("--config: reading {path:?}: {source}")]
    Read {
        /// The file; the last one tried.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// The file says what is not allowed: a line each.
    #[error("{}", .0.join("\n"))]
    Refused(Vec<String>),
}

/// A command line, what the configuration file adds included, and where that stands.
#[derive(Debug, Default)]
pub struct Arguments {
    /// The words, the program's name first.
    pub words: Vec<OsString>,
    /// The file that was read.
    pub file: Option<PathBuf>,
    origins: Vec<Origin>,
}

#[derive(Debug)]
struct Origin {
    flag: String,
    place: String,
}

impl Arguments {
    /// The words of a command line that `command` is to parse, with the keys of the file named by `--config`. Of several
    /// files, the first that exists is read.
    ///
    /// # Errors
    /// When no file can be read, or says what is not allowed.
    pub fn gather(words: Vec<OsString>, command: &Command) -> Result<Arguments, SettingsError> {
        let plain = |words| Arguments { words, ..Arguments::default() };
        let lenient = relaxed(command).ignore_errors(true);
        // What is wrong with the user's own words is told when all of them are parsed.
        let Ok(matches) = lenient.try_get_matches_from(&words) else { return Ok(plain(words)) };
        let Some((name, given)) = matches.subcommand() else { return Ok(plain(words)) };
        let Ok(Some(paths)) = given.try_get_many::<PathBuf>(CONFIG) else { return Ok(plain(words)) };
        let paths: Vec<PathBuf> = paths.cloned().collect();
        let (path, text) = read_first(&paths)?;
        let settings = Settings { command, subcommand: name, path: &path, text: &text };
        let keys = settings.keys()?;
        let after = words.iter().position(|word| word == name).map_or(words.len(), |at| at + 1);
        let mut gathered = words[..after].to_vec();
        let mut origins = Vec::new();
        for key in keys {
            if settings.overridden(&key.flag, given) {
                continue;
            }
            origins.push(Origin { flag: format!("--{}", key.flag), place: key.place });
            gathered.extend(key.words.into_iter().map(OsString::from));
        }
        gathered.extend_from_slice(&words[after..]);
        Ok(Arguments { words: gathered, file: Some(path), origins })
    }

    /// A refusal that begins with a flag, with file and line before it if the flag came from the file.
    pub fn place(&self, refusal: &str) -> String {
        let flag = refusal.split([':', ' ']).next().unwrap_or_default();
        match self.origins.iter().find(|origin| origin.flag == flag) {
            Some(origin) => format!("{}: {refusal}", origin.place),
            None => refusal.to_string(),
        }
    }

    /// Keys of the file that count: those that no flag overrides.
    pub fn keys(&self) -> usize {
        self.origins.len()
    }
}

/// The subcommand that these words name, if they name one.
pub fn subcommand(words: &[OsString], command: &Command) -> Option<String> {
    let matches = relaxed(command).ignore_errors(true).try_get_matches_from(words).ok()?;
    matches.subcommand_name().map(str::to_string)
}

/// The command with nothing required: each key must stand for itself.
fn relaxed(command: &Command) -> Command {
    command.clone().mut_subcommands(|subcommand| subcommand.mut_args(|arg| arg.required(false)))
}

fn read_first(paths: &[PathBuf]) -> Result<(PathBuf, String), SettingsError> {
    let mut failure = None;
    for path in paths {
        if path.as_os_str() == "-" {
            let refusal = ConfigError::NoStream { flag: "--config", what: "the settings" };
            return Err(SettingsError::Refused(vec![refusal.to_string()]));
        }
        match read_whole(path) {
            Ok(text) => return Ok((path.clone(), text)),
            Err(source) => {
                let absent = source.kind() == io::ErrorKind::NotFound;
                failure = Some(SettingsError::Read { path: path.clone(), source });
                if !absent {
                    break;
                }
            }
        }
    }
    Err(failure.unwrap_or_else(|| SettingsError::Refused(vec!["--config: no file was named".to_string()])))
}

/// The text of a file that is no longer than it may be.
fn read_whole(path: &Path) -> io::Result<String> {
    let mut octets = Vec::new();
    File::open(path)?.take(LONGEST_FILE + 1).read_to_end(&mut octets)?;
    if octets.len() as u64 > LONGEST_FILE {
        return Err(io::Error::other(format!("longer than the {LONGEST_FILE} octets that are allowed")));
    }
    String::from_utf8(octets).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// A file that is being read for a subcommand.
struct Settings<'a> {
    command: &'a Command,
    subcommand: &'a str,
    path: &'a Path,
    text: &'a str,
}

/// A key that is allowed, as the words of its flag.
struct Key {
    flag: String,
    place: String,
    words: Vec<String>,
}

impl Settings<'_> {
    /// The file's keys in the order they stand there.
    fn keys(&self) -> Result<Vec<Key>, SettingsError> {
        let table = match DeTable::parse(self.text) {
            Ok(table) => table.into_inner(),
            Err(error) => {
                let at = error.span().map_or(0, |span| span.start);
                let words = format!("{}: {}", self.place(at), error.message().replace('\n', "; "));
                return Err(SettingsError::Refused(vec![words]));
            }
        };
        let mut found: Vec<_> = table.iter().collect();
        found.sort_by_key(|(name, _)| name.span().start);
        let mut keys = Vec::new();
        let mut refusals = Vec::new();
        for (name, value) in found {
            let at = name.span().start;
            match self.key(name.get_ref(), value) {
                Ok(words) => {
                    keys.push(Key { flag: name.get_ref().to_string(), place: self.place(at), words });
                }
                Err(refusal) => refusals.push(format!("{}: {refusal}", self.place(at))),
            }
        }
        if refusals.is_empty() { Ok(keys) } else { Err(SettingsError::Refused(refusals)) }
    }

    fn place(&self, at: usize) -> String {
        let line = self.text[..at.min(self.text.len())].matches('\n').count() + 1;
        format!("{}:{line}", self.path.display())
    }

    fn subcommand(&self) -> impl Iterator<Item = &Arg> {
        let globals = self.command.get_arguments().filter(|arg| arg.is_global_set());
        let own = self.command.find_subcommand(self.subcommand).into_iter().flat_map(Command::get_arguments);
        own.chain(globals).filter(|arg| {
            !arg.is_hide_set() && !matches!(arg.get_long(), None | Some(CONFIG | "help" | "version"))
        })
    }

    fn arg(&self, flag: &str) -> Option<&Arg> {
        self.subcommand().find(|arg| arg.get_long() == Some(flag))
    }

    /// Another subcommand that reads such files and has this flag.
    fn owner(&self, flag: &str, is_meant: impl Fn(&Arg) -> bool) -> Option<&str> {
        let has = |command: &Command, flag: &str, is_meant: &dyn Fn(&Arg) -> bool| {
            command.get_arguments().any(|arg| arg.get_long() == Some(flag) && is_meant(arg))
        };
        let mut others = self.command.get_subcommands().filter(|other| other.get_name() != self.subcommand);
        let owner = others.find(|other| has(other, CONFIG, &|_| true) && has(other, flag, &is_meant))?;
        (flag != CONFIG).then_some(owner.get_name())
    }

    /// The words of one key's flag, or why it is refused.
    fn key(&self, name: &str, value: &Spanned<DeValue<'_>>) -> Result<Vec<String>, String> {
        let Some(arg) = self.arg(name) else {
            let mut allowed: Vec<&str> = self.subcommand().filter_map(Arg::get_long).collect();
            allowed.sort_unstable();
            let allowed = allowed.join(", ");
            return Err(match self.owner(name, |_| true) {
                Some(owner) => {
                    let own = self.subcommand;
                    format!("{name} belongs to `{owner}`, not to `{own}`; allowed are {allowed}")
                }
                None => format!("unknown key {name:?}, allowed are {allowed}"),
            });
        };
        let kind = value.get_ref().type_str();
        let words = match (arg.get_action(), value.get_ref()) {
            (ArgAction::SetTrue, DeValue::Boolean(yes)) => {
                if *yes {
                    vec![format!("--{name}")]
                } else {
                    Vec::new()
                }
            }
            (ArgAction::SetTrue, _) => {
                return Err(format!("{name}: {kind} found, allowed are true and false"));
            }
            (ArgAction::Count, value) => {
                let times: Option<usize> = value.as_integer().and_then(|n| n.as_str().parse().ok());
                match times {
                    Some(times) if times <= 3 => vec![format!("--{name}"); times],
                    _ => return Err(format!("{name}: {kind} found, allowed are the numbers 0 to 3")),
                }
            }
            (ArgAction::Append, DeValue::Array(values)) => {
                values.iter().map(|value| scalar(name, value.get_ref())).collect::<Result<_, _>>()?
            }
            (_, value) => match self.owner(name, takes_several) {
                Some(owner) if value.is_array() => {
                    let own = self.subcommand;
                    return Err(format!(
                        "{name}: an array found, which belongs to `{owner}`; `{own}` takes one value"
                    ));
                }
                _ => vec![scalar(name, value)?],
            },
        };
        let start = [self.command.get_name(), self.subcommand].map(String::from);
        match relaxed(self.command).try_get_matches_from(start.iter().chain(&words)) {
            Ok(_) => Ok(words),
            Err(error) => Err(plain_words(&error)),
        }
    }

    /// Whether the user gave this flag, or one that it conflicts with.
    fn overridden(&self, flag: &str, given: &ArgMatches) -> bool {
        let by_user = |arg: &Arg| {
            given.try_contains_id(arg.get_id().as_str()).is_ok()
                && given.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine)
        };
        let Some(arg) = self.arg(flag) else { return false };
        let conflicts = |one: &Arg, other: &Arg| {
            let holder = if one.is_global_set() {
                Some(self.command)
            } else {
                self.command.find_subcommand(self.subcommand)
            };
            holder.is_some_and(|command| {
                command.get_arg_conflicts_with(one).iter().any(|arg| arg.get_id() == other.get_id())
            })
        };
        by_user(arg)
            || self
                .subcommand()
                .any(|other| by_user(other) && (conflicts(arg, other) || conflicts(other, arg)))
    }
}

fn takes_several(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Append)
}

/// A flag with one value.
fn scalar(name: &str, value: &DeValue<'_>) -> Result<String, String> {
    let text = match value {
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(number) if number.radix() == 10 => number.as_str().to_string(),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_err(|_| format!("{name}: {} is too large", number.as_str()))?
            .to_string(),
        DeValue::Float(number) => number.as_str().to_string(),
        DeValue::Boolean(yes) => yes.to_string(),
        DeValue::Array(_) => return Err(format!("{name}: an array found, one value is allowed")),
        DeValue::Datetime(_) | DeValue::Table(_) => {
            return Err(format!("{name}: {} found, a string or a number is allowed", value.type_str()));
        }
    };
    Ok(format!("--{name}={text}"))
}

/// What clap says of a value, on one line.
fn plain_words(error: &clap::Error) -> String {
    let text = error.to_string();
    let lines: Vec<&str> = text
        .lines()
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    lines.join(" ").trim_start_matches("error: ").to_string()
}

/// The words that check a file as `live` would read it: an interface may come from the file or the command line.
pub fn words_to_check(path: &OsStr) -> Vec<OsString> {
    ["flowtap".as_ref(), "live".as_ref(), "--config".as_ref(), path].map(OsStr::to_os_string).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{self, Cli};
    use clap::{CommandFactory, Parser};

    fn gather(toml: &str, flags: &[&str]) -> Result<Arguments, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.toml");
        std::fs::write(&path, toml).unwrap();
        let mut words: Vec<OsString> = vec!["flowtap".into(), "live".into(), "--config".into(), path.into()];
        words.extend(flags.iter().map(OsString::from));
        Arguments::gather(words, &Cli::command())
            .map_err(|error| error.to_string().replace(&format!("{}/", folder.path().display()), ""))
    }

    fn live(toml: &str, flags: &[&str]) -> (cli::LiveArgs, Cli) {
        let arguments = gather(toml, flags).unwrap();
        let whole = Cli::parse_from(&arguments.words);
        match Cli::parse_from(&arguments.words).command {
            cli::Command::Live(args) => (args, whole),
            _ => unreachable!("the words say live"),
        }
    }

    #[test]
    fn keys_are_flags_and_flags_win() {
        let toml = "interface = 'eth0'\nto = ['csv:a', 'json:b']\nsnaplen = 0x100\nverbose = 2\nutc = true\n\
                    promiscuous = false\n";
        let (args, whole) = live(toml, &[]);
        assert_eq!((args.snaplen, args.meter.to.len(), args.promiscuous), (256, 2, false));
        assert!(args.meter.text.utc);
        assert_eq!(whole.verbose, 2);
        let (args, whole) = live(toml, &["--to", "csv:-", "--snaplen=128", "-q", "--promiscuous", "yes"]);
        assert_eq!((args.snaplen, args.meter.to.len(), args.promiscuous), (128, 1, true));
        assert_eq!((whole.verbose, whole.quiet), (0, true));
    }

    #[test]
    fn all_that_is_wrong_is_told_with_its_line_and_what_is_allowed() {
        let refusal = gather(
            "interface = 'eth0'\n\nactive-timout = '5s'\nidle-timeout = 5\nsummary = 'xml'\nutc = 1\nfilter = ['a']\n",
            &[],
        )
        .unwrap_err();
        let lines: Vec<&str> = refusal.lines().collect();
        assert_eq!(lines.len(), 5, "{refusal}");
        assert!(
            lines[0].starts_with("a.toml:3: unknown key \"active-timout\", allowed are active-timeout, ")
        );
        assert!(lines[1].starts_with("a.toml:4: invalid value '5' for '--idle-timeout <TIME>'"), "{refusal}");
        assert!(lines[1].contains("500ms, 15s, 5min"), "{refusal}");
        assert!(lines[2].contains("[possible values: text, json, none]"), "{refusal}");
        assert_eq!(lines[3], "a.toml:6: utc: integer found, allowed are true and false");
        assert_eq!(lines[4], "a.toml:7: filter: an array found, one value is allowed");
    }

    #[test]
    fn a_key_of_live_in_a_file_for_read_is_told_to_belong_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.toml");
        std::fs::write(&path, "snaplen = 96\ninterface = ['eth0']\nsnaplan = 1\nconfig = 'b'\n").unwrap();
        let words = ["flowtap", "read", "--config", path.to_str().unwrap(), "a.pcap"].map(OsString::from);
        let refusal = Arguments::gather(words.to_vec(), &Cli::command()).unwrap_err().to_string();
        let lines: Vec<&str> = refusal.lines().map(|line| line.split_once("a.toml:").unwrap().1).collect();
        assert!(
            lines[0].starts_with("1: snaplen belongs to `live`, not to `read`; allowed are active-"),
            "{refusal}"
        );
        assert_eq!(lines[1], "2: interface: an array found, which belongs to `live`; `read` takes one value");
        assert!(lines[2].starts_with("3: unknown key \"snaplan\", allowed are "), "{refusal}");
        assert!(lines[3].starts_with("4: unknown key \"config\", allowed are "), "{refusal}");
    }

    #[test]
    fn what_the_packaged_example_shows_as_a_default_is_the_flags_own() {
        let mut command = Cli::command();
        command.build();
        let live = command.find_subcommand("live").unwrap();
        let mut defaults = 0;
        for line in include_str!("../packaging/flowtap.toml").lines() {
            // What is no default says so behind it.
            let Some((key, value)) = line.strip_prefix("# ").and_then(|line| line.split_once(" = ")) else {
                continue;
            };
            let Some(arg) = live.get_arguments().find(|arg| arg.get_long() == Some(key)) else { continue };
            if value.contains('#') {
                continue;
            }
            defaults += 1;
            let own: Vec<_> = arg.get_default_values().iter().map(|value| value.to_str().unwrap()).collect();
            let shown = match (arg.get_action(), value.trim_matches('"')) {
                (ArgAction::SetTrue, switch) => switch,
                (_, "true") => "yes",
                (_, value) => value,
            };
            assert_eq!([shown], own[..], "{line}");
        }
        assert!(defaults > 15, "{defaults}");
    }

    #[test]
    fn what_is_no_toml_is_told_with_its_line() {
        assert!(gather("a = 1\nb = = 2\n", &[]).unwrap_err().starts_with("a.toml:2: "));
        assert!(gather("utc = true\nutc = true\n", &[]).unwrap_err().starts_with("a.toml:2: "));
    }

    #[test]
    fn a_refusal_of_the_checks_names_the_line_its_flag_stands_on() {
        let arguments = gather("# a\nactive-timeout = '0s'\n", &[]).unwrap();
        let placed = arguments.place("--active-timeout: 0ns is too short, the least is 1ms");
        assert!(
            placed.ends_with("a.toml:2: --active-timeout: 0ns is too short, the least is 1ms"),
            "{placed}"
        );
        assert_eq!(arguments.place("--mtu: 5"), "--mtu: 5");
    }

    #[test]
    fn a_file_longer_than_any_that_is_meant_is_refused() {
        let longest = " ".repeat(LONGEST_FILE as usize);
        assert!(gather(&longest, &[]).is_ok());
        let told = "--config: reading \"a.toml\": longer than the 1048576 octets that are allowed";
        assert_eq!(gather(&format!("{longest} "), &[]).err().as_deref(), Some(told));
    }

    #[test]
    fn of_several_files_the_first_that_exists_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("b.toml");
        std::fs::write(&path, "snaplen = 99").unwrap();
        let missing = folder.path().join("a.toml");
        let words = |paths: &[&PathBuf]| {
            let mut words: Vec<OsString> = vec!["flowtap".into(), "live".into()];
            words.extend(paths.iter().flat_map(|path| ["--config".into(), path.as_os_str().to_owned()]));
            words
        };
        let arguments = Arguments::gather(words(&[&missing, &path]), &Cli::command()).unwrap();
        assert_eq!((arguments.file.as_deref(), arguments.keys()), (Some(path.as_path()), 1));
        let error = Arguments::gather(words(&[&missing]), &Cli::command()).unwrap_err().to_string();
        assert!(error.starts_with("--config: reading") && error.contains("a.toml"), "{error}");
        assert_eq!(
            Arguments::gather(words(&[&PathBuf::from("-")]), &Cli::command()).unwrap_err().to_string(),
            "--config: - is standard input or output, where the settings cannot be; a file of that name is ./-"
        );
    }
}
