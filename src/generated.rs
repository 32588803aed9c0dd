//! What is made of the flags' definition and packed beside the program: man pages and shell completions.
//!
//! A hidden subcommand writes them into `packaging/`, where they are kept: a build script would have every build make
//! what changes with the flags only. A test holds the kept ones against the flags.

use std::io;
use std::path::Path;

use clap::Command;
use clap_complete::Shell;

/// Writes a man page for each subcommand and one for all of them (`flowtap.1`, `flowtap-live.1`, …).
///
/// # Errors
/// When a page cannot be written.
pub fn man_pages(command: Command, folder: &Path) -> io::Result<()> {
    // The help shows what suits this terminal; the page must be the same everywhere.
    clap_mangen::generate_to(command.disable_help_subcommand(true), folder)
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
