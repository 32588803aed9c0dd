//! `flowtap print`: IPFIX files as a table, CSV or JSON lines.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::flow::to_flow_records;
use super::ipfix::{Counts, DataRecord, MessageReader, ReadError, VERSION};
use super::json;
use crate::export::text::write::UtcTimes;
use crate::export::text::{self, Output, TextError, TextExporter, TextFormat, TextOptions};
use crate::export::{Delivery, Exporter, MeteringStatistics};
use crate::flow::FlowRecord;
use crate::time::Timestamp;

/// Flow Records are handed on in batches of this many.
const BATCH: usize = 1024;

/// The IPFIX files in a folder: those that begin as a Message does, in the order of their names. Then what is not:
/// other files, and the folders in it.
///
/// # Errors
/// The folder cannot be listed.
pub fn files_in(folder: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>), ReadError> {
    let cannot = |source| ReadError::Open { path: folder.to_owned(), source };
    let listed: Result<Vec<PathBuf>, _> =
        std::fs::read_dir(folder).map_err(cannot)?.map(|entry| entry.map(|entry| entry.path())).collect();
    let mut paths = listed.map_err(cannot)?;
    paths.sort();
    Ok(paths.into_iter().partition(|path| may_be_messages(path)))
}

/// Whether a folder's entry is to be read: it begins as a Message does. A file that cannot be read may be one too: its turn
/// will tell. A pipe is not opened, it could keep its reader waiting.
pub fn may_be_messages(path: &Path) -> bool {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => return false,
        Err(_) => return true,
    }
    let mut version = [0; 2];
    match File::open(path).and_then(|mut file| file.read_exact(&mut version)) {
        Ok(()) => u16::from_be_bytes(version) == VERSION,
        Err(error) => error.kind() != ErrorKind::UnexpectedEof,
    }
}

/// Writes the records of IPFIX files as text.
///
/// The table and CSV show Flow Records, as [`to_flow_records`] understands them; records that are none are counted. JSON
/// shows every record with all its fields, options too.
pub struct Printer {
    rows: Rows,
    counts: Counts,
    not_flows: u64,
}

enum Rows {
    Flows { exporter: Box<TextExporter>, batch: Vec<FlowRecord> },
    Fields { output: Box<Output>, times: UtcTimes },
}

impl Printer {
    /// Opens `path` (`-`: standard output) for text of this form.
    ///
    /// # Errors
    /// The file cannot be created.
    pub fn open(format: TextFormat, path: &Path, options: &TextOptions) -> Result<Printer, TextError> {
        let rows = match format {
            TextFormat::Json if options.top.is_none() => {
                Rows::Fields { output: Box::new(Output::open(path)?), times: UtcTimes::default() }
            }
            _ => Rows::Flows {
                exporter: Box::new(text::open(format, path, options)?),
                batch: Vec::with_capacity(2 * BATCH),
            },
        };
        Ok(Printer { rows, counts: Counts::default(), not_flows: 0 })
    }

    /// Writes the records of one file (`-`: standard input), until its end or until no one reads what is written.
    ///
    /// # Errors
    /// The file cannot be opened or read to its end; what was read before is written all the same, and the next file
    /// may follow.
    pub fn print(&mut self, path: &Path) -> Result<(), ReadError> {
        let mut reader = MessageReader::open(path)?;
        let closed = self.pipe_closed();
        let mut record = DataRecord::empty();
        let read = loop {
            match reader.read(&mut record) {
                Ok(true) if closed.load(Ordering::Relaxed) => break Ok(()),
                Ok(true) => self.record(&record),
                Ok(false) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        let counts = reader.counts();
        self.counts.messages += counts.messages;
        self.counts.data_records += counts.data_records;
        self.counts.options_records += counts.options_records;
        self.counts.skipped_sets += counts.skipped_sets;
        read
    }

    fn record(&mut self, record: &DataRecord) {
        match &mut self.rows {
            Rows::Fields { output, times } => output.line(|out| json::line(record, times, out)),
            Rows::Flows { exporter, batch } => {
                if to_flow_records(record, batch) == 0 && !record.is_options() {
                    self.not_flows += 1;
                }
                if batch.len() >= BATCH {
                    exporter.export(batch);
                    batch.clear();
                }
            }
        }
    }

    /// Writes what is left and closes the destination.
    pub fn finish(&mut self) {
        match &mut self.rows {
            Rows::Fields { output, .. } => output.close(),
            Rows::Flows { exporter, batch } => {
                exporter.export(batch);
                batch.clear();
                exporter.finish(Timestamp::EPOCH, &MeteringStatistics::default());
            }
        }
    }

    /// What the files held so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Records that a table or CSV does not show because they are not of flows (they name no address).
    pub fn not_flows(&self) -> u64 {
        self.not_flows
    }

    /// What became of the records; in JSON they are counted without packets and octets.
    pub fn delivery(&self) -> Delivery {
        match &self.rows {
            Rows::Fields { output, .. } => output.delivery(),
            Rows::Flows { exporter, .. } => exporter.delivery(),
        }
    }

    /// Why writing failed, if it did: names the destination and the reason.
    pub fn failure(&self) -> Option<&str> {
        match &self.rows {
            Rows::Fields { output, .. } => output.failure(),
            Rows::Flows { exporter, .. } => exporter.failure(),
        }
    }

    /// Becomes true when the reader of the pipe has gone away.
    pub fn pipe_closed(&self) -> Arc<AtomicBool> {
        match &self.rows {
            Rows::Fields { output, .. } => output.pipe_closed(),
            Rows::Flows { exporter, .. } => exporter.pipe_closed(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A Message of a template and two records, and four octets of what might have been another.
    const CUT_FILE: &[u8] = &[
        0, 10, 0, 64, 0x65, 0x53, 0xF1, 0x00, 0, 0, 0, 0, 0, 0, 0, 1, // header
        0, 2, 0, 24, 1, 0, 0, 4, 0, 8, 0, 4, 0, 12, 0, 4, 0, 4, 0, 1, 0, 2, 0, 1, // template
        1, 0, 0, 24, 192, 0, 2, 1, 192, 0, 2, 2, 17, 5, 192, 0, 2, 3, 192, 0, 2, 4, 47, 1, // data
        0, 10, 0, 40, // cut
    ];

    fn printed(format: TextFormat) -> (String, String) {
        let folder = tempfile::tempdir().unwrap();
        let (input, output) = (folder.path().join("cut.ipfix"), folder.path().join("out"));
        std::fs::write(&input, CUT_FILE).unwrap();
        let mut printer =
            Printer::open(format, &output, &TextOptions { utc: true, ..TextOptions::default() }).unwrap();
        let error = printer.print(&input).unwrap_err().to_string();
        printer.finish();
        assert_eq!(printer.failure(), None);
        assert_eq!(printer.counts().data_records, 2);
        assert_eq!(printer.delivery().sent.records, 2);
        (std::fs::read_to_string(output).unwrap(), error)
    }

    #[test]
    fn a_file_is_printed_as_far_as_it_is_whole_and_the_error_names_it() {
        let (csv, error) = printed(TextFormat::Csv);
        let rows: Vec<&str> = csv.lines().skip(1).collect();
        assert_eq!(rows.len(), 2);
        assert!(
            rows[0].starts_with("192.0.2.1,192.0.2.2,17,0,0,5,0,1700000000000,1700000000000,0x000,"),
            "{csv}"
        );
        assert!(
            error.contains("cut.ipfix: octet 64: message header cut off: 16 octets needed, 4 left"),
            "{error}"
        );
        let (table, _) = printed(TextFormat::Table);
        assert!(table.contains("gre    192.0.2.3    192.0.2.4          1       0  -      forced"), "{table}");
        let (json, _) = printed(TextFormat::Json);
        assert!(json.contains(r#""fields":{"sourceIPv4Address":"192.0.2.3","#), "{json}");
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let options = TextOptions::default();
        let mut printer = Printer::open(TextFormat::Csv, &folder.path().join("out"), &options).unwrap();
        let error = printer.print(Path::new("/nowhere/x.ipfix")).unwrap_err();
        assert_eq!(error.to_string(), "cannot open /nowhere/x.ipfix");
    }
}
