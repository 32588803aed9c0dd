//! The files of a run: the flags that name them in; a refusal out where one file has two uses, or cannot be.

use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::slice;

use super::ConfigError;
use crate::capture::file::may_be_capture;
use crate::cli::{Cli, Command};
use crate::collect::print::may_be_messages;
use crate::export::destination::Destination;

/// The folders that the packaged unit makes before it starts `live` (StateDirectory=, LogsDirectory=).
const MADE_BY_THE_UNIT: [&str; 2] = ["/var/lib/flowtap", "/var/log/flowtap"];

/// Checks that each file a run writes is written by one flag, and is none of its inputs. To be called before the first of
/// them is opened, the log included: opening them would cut them off, or make what was not there.
///
/// # Errors
/// The first flag whose file has another use.
pub fn check_files(cli: &Cli) -> Result<(), ConfigError> {
    if cli.log_file.as_deref() == Some(Path::new("-")) {
        return Err(ConfigError::NoStream { flag: "--log-file", what: "the log" });
    }
    type IsInput = fn(&Path) -> bool;
    let (to, write, inputs, is_input): (&[Destination], _, &[PathBuf], IsInput) = match &cli.command {
        Command::Read(args) => (&args.meter.to, None, &args.files, may_be_capture),
        Command::Live(args) => (&args.meter.to, args.write.as_deref(), &[], |_| false),
        Command::Print(args) => (slice::from_ref(&args.to), None, &args.files, may_be_messages),
        _ => return Ok(()),
    };
    let write = write.filter(|path| !super::is_standard_output(path));
    let to = to.iter().filter(|to| !to.is_standard_output());
    let to = to.filter_map(|to| Some(("--to", to.to_string(), to.path()?.as_path())));
    let others = [("--write", write), ("--log-file", cli.log_file.as_deref())];
    let others =
        others.into_iter().filter_map(|(flag, path)| Some((flag, path?.display().to_string(), path?)));
    let mut seen: Vec<(&'static str, String, FileId)> = Vec::new();
    for (flag, value, path) in to.chain(others) {
        let Some(file) = FileId::of(path) else { continue };
        if let Some((first, its_value, _)) = seen.iter().find(|(.., before)| *before == file) {
            let other = format!("{flag} {value}");
            return Err(ConfigError::SameFile { flag: first, value: its_value.clone(), other });
        }
        if let Some(input) = inputs.iter().find(|input| is_read(input, &file, is_input)) {
            return Err(ConfigError::AlsoRead { flag, value, input: input.clone() });
        }
        seen.push((flag, value, file));
    }
    Ok(())
}

/// Whether reading `input` reads `file`: in a folder, what `is_input` takes for one.
fn is_read(input: &Path, file: &FileId, is_input: fn(&Path) -> bool) -> bool {
    if input.as_os_str() == "-" {
        return false;
    }
    // One that cannot be listed is not read either.
    let Ok(entries) = fs::read_dir(input) else { return FileId::of(input).as_ref() == Some(file) };
    let mut paths = entries.flatten().map(|entry| entry.path());
    paths.any(|path| FileId::of(&path).as_ref() == Some(file) && is_input(&path))
}

/// Checks that the folder of a file to be written is there. A relative path is left to the run: a service's is not that of whoever
/// checks its configuration.
pub(super) fn in_a_folder(flag: &'static str, path: &Path) -> Result<(), ConfigError> {
    let Some(folder) = path.parent().filter(|_| path.is_absolute()) else { return Ok(()) };
    let is_missing = match fs::metadata(folder) {
        Ok(metadata) => !metadata.is_dir(),
        Err(error) => matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
    };
    if is_missing && !MADE_BY_THE_UNIT.map(Path::new).contains(&folder) {
        return Err(ConfigError::NoFolder { flag, path: path.to_owned(), folder: folder.to_owned() });
    }
    Ok(())
}

/// Which regular file a path leads to, by device and inode: whatever way it is written, links of both kinds followed.
#[derive(PartialEq, Eq)]
struct FileId {
    device: u64,
    inode: u64,
    /// Of a file that is still to be made: its name in the folder that the numbers are of.
    name: Option<OsString>,
}

impl FileId {
    /// None for what may be shared, devices and pipes, and for what cannot be made, which opening it will tell.
    fn of(path: &Path) -> Option<FileId> {
        let id = |there: fs::Metadata, name| FileId { device: there.dev(), inode: there.ino(), name };
        match fs::metadata(path) {
            Ok(there) => there.is_file().then(|| id(there, None)),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
                let folder = folder.unwrap_or(Path::new("."));
                match fs::read_link(path) {
                    // A link to what is not there yet: opening it for writing makes that. Links in a circle were another error.
                    Ok(target) => FileId::of(&folder.join(target)),
                    Err(_) => Some(id(fs::metadata(folder).ok()?, Some(path.file_name()?.to_owned()))),
                }
            }
            Err(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use std::os::unix::fs::symlink;

    /// What [`check_files`] says of these words; nothing where all is well.
    fn of_files(words: &str) -> String {
        let words = ["flowtap"].into_iter().chain(words.split(' '));
        let checked = check_files(&Cli::try_parse_from(words).unwrap());
        checked.err().map_or(String::new(), |error| error.to_string())
    }

    #[test]
    fn each_file_that_is_written_is_written_by_one_flag() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().display();
        let live = |flags: String| of_files(&format!("live -i lo {flags}"));
        let own = "are the same file, each needs one of its own";
        assert_eq!(
            live(format!("--to csv:{at}/a --to json:{at}/./a")),
            format!("--to: csv:{at}/a and --to json:{at}/./a {own}")
        );
        assert_eq!(
            live(format!("--write {at}/a --to csv:{at}/a")),
            format!("--to: csv:{at}/a and --write {at}/a {own}")
        );
        assert_eq!(
            live(format!("--write {at}/a --log-file {at}/a")),
            format!("--write: {at}/a and --log-file {at}/a {own}")
        );
        for command in ["read a.pcap", "print a.ipfix"] {
            assert_eq!(
                of_files(&format!("{command} --log-file {at}/a --to csv:{at}/a")),
                format!("--to: csv:{at}/a and --log-file {at}/a {own}")
            );
        }
        assert_eq!(live(format!("--write {at}/a --log-file {at}/b --to csv:{at}/c --to json:-")), "");
        assert_eq!(live("--write /dev/null --log-file /dev/null --to csv:/dev/null".to_string()), "");
    }

    #[test]
    fn a_dash_is_standard_input_or_output_and_never_a_file() {
        assert_eq!(of_files("live -i lo --write - --to csv:./-"), "");
        assert_eq!(
            of_files("live -i lo --write ./- --to csv:./-"),
            "--to: csv:./- and --write ./- are the same file, each needs one of its own"
        );
        for command in ["live -i lo", "read a.pcap", "print a.ipfix", "interfaces"] {
            assert_eq!(
                of_files(&format!("{command} --log-file -")),
                "--log-file: - is standard input or output, where the log cannot be; a file of that name is ./-"
            );
        }
        assert_eq!(of_files("read a.pcap --log-file ./-"), "");
    }

    #[test]
    fn two_names_of_one_file_are_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let (there, at) = (folder.path().join("there"), folder.path().display());
        fs::write(&there, "").unwrap();
        fs::hard_link(&there, folder.path().join("hard")).unwrap();
        symlink(&there, folder.path().join("soft")).unwrap();
        fs::create_dir(folder.path().join("below")).unwrap();
        symlink("below", folder.path().join("other")).unwrap();
        symlink("below/new", folder.path().join("dangling")).unwrap();
        symlink("circle", folder.path().join("circle")).unwrap();
        for (one, other) in [
            ("there", "./there"),
            ("there", "hard"),
            ("soft", "hard"),
            ("below/new", "other/new"),
            ("below/new", "other/../below/./new"),
            ("dangling", "other/new"),
        ] {
            let said = of_files(&format!("live -i lo --to csv:{at}/{one} --write {at}/{other}"));
            assert!(said.contains("are the same file"), "{one} {other}: {said}");
        }
        for (one, other) in [("there", "below/there"), ("below/new", "new"), ("circle", "circle")] {
            assert_eq!(of_files(&format!("live -i lo --to csv:{at}/{one} --write {at}/{other}")), "");
        }
    }

    #[test]
    fn what_is_read_is_not_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let (captures, at) = (folder.path().join("captures"), folder.path().display());
        fs::create_dir(&captures).unwrap();
        fs::write(captures.join("a"), 0xa1b2_c3d4_u32.to_ne_bytes()).unwrap();
        fs::write(captures.join("m"), [0, 10, 0, 16]).unwrap();
        fs::hard_link(captures.join("a"), folder.path().join("a")).unwrap();
        for input in [format!("{at}/captures/a"), format!("{at}/captures"), format!("{at}/./a")] {
            for (flag, value) in [("--to", "csv:"), ("--log-file", "")] {
                assert_eq!(
                    of_files(&format!("read {flag} {value}{at}/a {input}")),
                    format!("{flag}: {value}{at}/a is also read, and must not be written to: FILE {input}")
                );
            }
        }
        // Of a folder only what begins as an input does is read: not what an earlier run wrote there.
        assert_eq!(of_files(&format!("read --to csv:{at}/captures/m {at}/captures")), "");
        assert_eq!(of_files(&format!("print --to csv:{at}/captures/a {at}/captures")), "");
        assert!(of_files(&format!("print --to csv:{at}/captures/m {at}/captures")).contains("is also read"));
        // What is not there yet would be there, and empty, by the time it is read.
        assert!(of_files(&format!("read --to csv:{at}/new {at}/new")).contains("is also read"));
        assert_eq!(of_files(&format!("read --to csv:{at}/- -")), "");
    }
}
