//! Flow Records as text for people and scripts: a table, CSV, JSON lines, and the heaviest talkers of each.
//!
//! [`open`] gives a [`TextExporter`], an [`Exporter`] that writes one of the three [`TextFormat`]s to a file or to
//! standard output. Rows are put together by hand in one reused buffer and written in pieces of 256 KiB: no formatting
//! machinery and no allocation stands between a record and its row. A closed pipe (`| head`) is no failure: it is
//! told by [`TextExporter::pipe_closed`], and what follows is counted as lost.

mod csv;
mod elements;
mod json;
mod output;
mod table;
mod top;
pub(crate) mod write;

pub mod names;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

pub use elements::{ListedElement, elements_as_markdown, elements_as_text};
pub(crate) use output::Output;

use super::{Delivery, Exporter, MeteringStatistics};
use crate::flow::FlowRecord;
use crate::time::Timestamp;

/// How records are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextFormat {
    /// Aligned columns for a person.
    Table,
    /// Comma-separated values: a header line and a line a record (RFC 4180, lines ended by LF alone).
    Csv,
    /// A JSON object a line.
    Json,
}

/// What the heaviest talkers are ranked by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopBy {
    /// Octets sent.
    Octets,
    /// Packets sent.
    Packets,
    /// Flow Records that name the address as their source.
    Flows,
}

/// How text looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextOptions {
    /// Times of the table in UTC; else in the local time zone. CSV and JSON are always UTC.
    pub utc: bool,
    /// Columns of the terminal that the table goes to; `None` where there is no terminal: then lines are as long as
    /// they need to be.
    pub terminal_width: Option<u16>,
    /// Instead of records, this many of the heaviest talkers, ranked by this.
    pub top: Option<(usize, TopBy)>,
    /// The table holds up to this many records to sort them by start; with more it goes over to order of arrival. 0
    /// writes each record when it comes, which is what a live capture wants.
    pub sort_limit: usize,
}

impl Default for TextOptions {
    fn default() -> TextOptions {
        TextOptions { utc: false, terminal_width: None, top: None, sort_limit: 1_000_000 }
    }
}

/// Why no text can be written.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// The file cannot be created.
    #[error("cannot create {}", path.display())]
    Create {
        /// The path as given.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Opens `path` (`-`: standard output) for records as `format`; a file that is there is replaced.
///
/// # Errors
/// The file cannot be created.
pub fn open(format: TextFormat, path: &Path, options: &TextOptions) -> Result<TextExporter, TextError> {
    Ok(TextExporter::new(format, Output::open(path)?, options))
}

/// Writes Flow Records as text.
pub struct TextExporter {
    output: Output,
    rows: Rows,
}

enum Rows {
    Csv(csv::Rows),
    Json(json::Rows),
    Table(Box<table::Table>),
    Top(Box<top::Talkers>),
}

impl TextExporter {
    pub(crate) fn new(format: TextFormat, mut output: Output, options: &TextOptions) -> TextExporter {
        let rows = match (options.top, format) {
            (Some((most, by)), _) => Rows::Top(Box::new(top::Talkers::new(format, most, by))),
            (None, TextFormat::Csv) => Rows::Csv(csv::Rows::begin(&mut output)),
            (None, TextFormat::Json) => Rows::Json(json::Rows::default()),
            (None, TextFormat::Table) => Rows::Table(Box::new(table::Table::new(options))),
        };
        TextExporter { output, rows }
    }

    /// Becomes true when the reader of the pipe has gone away: nothing that follows is read by anyone, so the run may
    /// end. The flag is shared, so that it can be kept where the exporter itself is not at hand.
    pub fn pipe_closed(&self) -> Arc<AtomicBool> {
        self.output.pipe_closed()
    }
}

impl Exporter for TextExporter {
    fn export(&mut self, records: &[FlowRecord]) {
        match &mut self.rows {
            Rows::Csv(rows) => rows.write(records, &mut self.output),
            Rows::Json(rows) => rows.write(records, &mut self.output),
            Rows::Table(table) => table.take(records, &mut self.output),
            Rows::Top(talkers) => talkers.take(records),
        }
    }

    fn tick(&mut self, now: Timestamp, _metering: &MeteringStatistics) {
        self.output.tick(now);
    }

    fn send_waiting(&mut self, _now: Timestamp) {
        self.output.flush();
    }

    fn reopen(&mut self, _now: Timestamp) {
        if self.output.reopen() {
            match &mut self.rows {
                Rows::Csv(rows) => *rows = csv::Rows::begin(&mut self.output),
                Rows::Table(table) => table.begin_again(),
                // JSON lines have no header; the talkers are written once, at the end.
                Rows::Json(_) | Rows::Top(_) => {}
            }
        }
    }

    fn finish(&mut self, _now: Timestamp, _metering: &MeteringStatistics) {
        match &mut self.rows {
            Rows::Csv(_) | Rows::Json(_) => {}
            Rows::Table(table) => table.finish(&mut self.output),
            Rows::Top(talkers) => talkers.finish(&mut self.output),
        }
        self.output.close();
    }

    fn delivery(&self) -> Delivery {
        self.output.delivery()
    }

    fn failure(&self) -> Option<&str> {
        self.output.failure()
    }
}

#[cfg(test)]
mod tests;
