//! The table for a person: a line a record, or a folded one where the terminal is too narrow for it.
//!
//! Records are held to sort them by start and to see how wide each column must be; with more than the limit of them
//! the table is written in order of arrival, and says so. Nothing is ever cut off: where a line does not fit the
//! terminal the date goes to a line of its own, then counts of seven digits and more are rounded down (`1.23M`), and
//! then the destination goes under the source, which lets two IPv6 addresses stand in 80 columns. A row whose cells are
//! wider than could be known has less room for its addresses: no line is longer than a terminal of 80 columns or more.

use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::TextOptions;
use super::names;
use super::output::Output;
use super::write::{address, digits, integer};
use crate::decode::{IpVersion, TCP, has_ports};
use crate::flow::FlowRecord;
use crate::time::Timestamp;

/// The columns in their order; each is an index into cells and widths.
const START: usize = 0;
const DURATION: usize = 1;
const PROTOCOL: usize = 2;
const SOURCE: usize = 3;
const DESTINATION: usize = 4;
const PACKETS: usize = 5;
const OCTETS: usize = 6;
const FLAGS: usize = 7;
const END: usize = 8;
const COLUMNS: usize = 9;

const TITLES: [&str; COLUMNS] =
    ["Start", "Duration", "Proto", "Source", "Destination", "Packets", "Octets", "Flags", "End"];
const SHORT_TITLES: [&str; COLUMNS] =
    ["Start", "Dur", "Proto", "Source", "Destination", "Pkts", "Octets", "Flags", "End"];
const FOLDED_TITLE: &str = "Source -> Destination";
/// Where all other columns are as wide as they can be in 80 characters, this is what they leave.
const SHORT_FOLDED_TITLE: &str = "Source -> Dst";
const ARROW: &str = "-> ";

/// `192.168.100.200:65535`: what a column for addresses is wide where the records are not known beforehand.
const LONGEST_IPV4_ENDPOINT: usize = 21;

const DATED_START: usize = "2024-01-01 12:00:00.123".len();
const UNDATED_START: usize = "12:00:00.123".len();

pub(super) struct Table {
    zone: TimeZone,
    zone_name: String,
    terminal_width: Option<usize>,
    limit: usize,
    held: Vec<FlowRecord>,
    /// Settled when the first row is written.
    layout: Option<Layout>,
    /// The date that the rows above stand under, where it is not in each of them.
    date: Option<Date>,
    cells: Cells,
}

impl Table {
    pub(super) fn new(options: &TextOptions) -> Table {
        let zone = match options.utc {
            true => TimeZone::UTC,
            false => TimeZone::try_system().unwrap_or(TimeZone::unknown()),
        };
        Table::in_zone(zone, options)
    }

    /// The next row is the first of a new file: its titles go before it.
    pub(super) fn begin_again(&mut self) {
        if self.layout.take().is_some() {
            // What came before can no longer be sorted with what comes.
            (self.limit, self.date) = (0, None);
        }
    }

    pub(super) fn in_zone(zone: TimeZone, options: &TextOptions) -> Table {
        let zone_name = match (options.utc, zone.iana_name()) {
            (true, _) => "UTC".to_owned(),
            _ if zone.is_unknown() => "UTC (the local time zone is not known)".to_owned(),
            (false, Some(name)) => format!("local time ({name})"),
            (false, None) => "local time".to_owned(),
        };
        Table {
            zone,
            zone_name,
            terminal_width: options.terminal_width.map(usize::from),
            limit: options.sort_limit,
            held: Vec::new(),
            layout: None,
            date: None,
            cells: Cells::default(),
        }
    }

    pub(super) fn take(&mut self, records: &[FlowRecord], output: &mut Output) {
        if self.layout.is_none() {
            if self.held.len() + records.len() <= self.limit {
                self.held.extend_from_slice(records);
                return;
            }
            let order = if self.limit == 0 {
                "Flows in order of arrival".to_owned()
            } else {
                log::warn!("more than {} flows: the table is in order of arrival, not of start", self.limit);
                format!("More than {} flows, so in order of arrival", self.limit)
            };
            let held = std::mem::take(&mut self.held);
            self.begin(&order, &held, output);
            self.rows(&held, output);
        }
        self.rows(records, output);
    }

    pub(super) fn finish(&mut self, output: &mut Output) {
        if self.layout.is_some() {
            return;
        }
        let mut held = std::mem::take(&mut self.held);
        if held.is_empty() {
            // A line of titles above nothing looks like a fault.
            return output.buffer().extend_from_slice(b"No flows\n");
        }
        held.sort_by_key(|record| record.start);
        self.begin("Flows by start", &held, output);
        self.rows(&held, output);
    }

    /// Settles the layout for `records` and writes the lines above the rows.
    fn begin(&mut self, order: &str, records: &[FlowRecord], output: &mut Output) {
        let needs = if records.is_empty() { Needs::unknown() } else { Needs::of(records, &mut self.cells) };
        let layout = Layout::choose(&needs, self.terminal_width);
        let out = output.buffer();
        out.extend_from_slice(format!("{order}, times in {}\n", self.zone_name).as_bytes());
        layout.titles(out);
        self.layout = Some(layout);
    }

    fn rows(&mut self, records: &[FlowRecord], output: &mut Output) {
        let Some(mut layout) = self.layout.take() else { return };
        for record in records {
            let start =
                jiff::Timestamp::from_nanosecond(i128::from(record.start.nanos())).unwrap_or_default();
            let start = self.zone.to_datetime(start);
            let cells = &mut self.cells;
            cells.fill(record, layout.compact);
            let time = &mut cells.0[START];
            if layout.dated {
                write_date(time, start.date());
                time.push(b' ');
            }
            write_time(time, start.time(), record.start);
            if self.terminal_width.is_none() {
                layout.widen(cells);
            }
            let date = &mut self.date;
            output.record(record, |out| {
                if !layout.dated && *date != Some(start.date()) {
                    write_date(out, start.date());
                    out.push(b'\n');
                    *date = Some(start.date());
                }
                layout.row(out, cells);
            });
        }
        self.layout = Some(layout);
    }
}

/// The text of one row, column by column, in buffers that are used again.
#[derive(Default)]
struct Cells([Vec<u8>; COLUMNS]);

impl Cells {
    /// Fills all cells but [`START`], which depends on the time zone.
    fn fill(&mut self, record: &FlowRecord, compact: bool) {
        for cell in &mut self.0 {
            cell.clear();
        }
        duration(&mut self.0[DURATION], record.end.since(record.start).as_nanos() as u64, compact);
        match names::protocol(record.protocol) {
            Some(name) => self.0[PROTOCOL].extend_from_slice(name.as_bytes()),
            None => integer(&mut self.0[PROTOCOL], record.protocol),
        }
        self.fill_endpoints(record);
        count(&mut self.0[PACKETS], record.packets, compact);
        count(&mut self.0[OCTETS], record.octets, compact);
        flags(&mut self.0[FLAGS], record, compact);
        self.0[END].extend_from_slice(names::end_reason(record.end_reason).as_bytes());
    }

    fn fill_endpoints(&mut self, record: &FlowRecord) {
        endpoint(&mut self.0[SOURCE], record, &record.source, record.source_port);
        endpoint(&mut self.0[DESTINATION], record, &record.destination, record.destination_port);
    }
}

/// `192.0.2.1:80`, `[2001:db8::1]:80`; the address alone where the protocol has no ports.
fn endpoint(out: &mut Vec<u8>, record: &FlowRecord, octets: &[u8; 16], port: u16) {
    if !has_ports(record.protocol) {
        return address(out, record.ip_version, octets);
    }
    match record.ip_version {
        IpVersion::V4 => address(out, record.ip_version, octets),
        IpVersion::V6 => {
            out.push(b'[');
            address(out, record.ip_version, octets);
            out.push(b']');
        }
    }
    out.push(b':');
    integer(out, port);
}

/// TCP flags as letters; for ICMP, which has none, the type and code (as numbers, `8/0`, where room is short).
fn flags(out: &mut Vec<u8>, record: &FlowRecord, compact: bool) {
    if record.protocol == TCP {
        return names::flag_letters(out, record.tcp_flags());
    }
    let Some((icmp_type, code)) = names::icmp(record) else { return out.push(b'-') };
    match names::icmp_type(record.ip_version, icmp_type) {
        Some(name) if !compact => {
            out.extend_from_slice(name.as_bytes());
            if code != 0 {
                out.push(b'/');
                integer(out, code);
            }
        }
        _ => {
            integer(out, icmp_type);
            out.push(b'/');
            integer(out, code);
        }
    }
}

/// `0.057s`, `1m05s`, `2h03m`, `4d05h`: as exact as seven characters allow. A thousand days and more, which only other
/// exporters report, take more; `compact` holds them to whole days.
fn duration(out: &mut Vec<u8>, nanos: u64, compact: bool) {
    let seconds = nanos / 1_000_000_000;
    let mut pair = |large: u64, unit: u8, small: u64, small_unit: u8| {
        integer(out, large);
        out.push(unit);
        digits(out, small, 2);
        out.push(small_unit);
    };
    match seconds {
        0..60 => {
            integer(out, seconds);
            out.push(b'.');
            digits(out, nanos / 1_000_000 % 1000, 3);
            out.push(b's');
        }
        60..3600 => pair(seconds / 60, b'm', seconds % 60, b's'),
        3600..86_400 => pair(seconds / 3600, b'h', seconds / 60 % 60, b'm'),
        86_400_000.. if compact => {
            integer(out, seconds / 86_400);
            out.push(b'd');
        }
        _ => pair(seconds / 86_400, b'd', seconds / 3600 % 24, b'h'),
    }
}

/// A count; `compact` holds it to six characters: exact up to 999999, else its first three digits and a unit of a
/// thousand each (`1.23M`), rounded down.
pub(super) fn count(out: &mut Vec<u8>, value: u64, compact: bool) {
    if !compact || value < 1_000_000 {
        return integer(out, value);
    }
    let (mut unit, mut scale) = (0, 1_000_000u64);
    while value / scale >= 1000 {
        scale *= 1000;
        unit += 1;
    }
    let whole = value / scale;
    let thousandths = value % scale / (scale / 1000);
    integer(out, whole);
    let places = match whole {
        0..10 => 2,
        10..100 => 1,
        _ => 0,
    };
    if places > 0 {
        out.push(b'.');
        digits(out, thousandths / 10u64.pow(3 - places as u32), places);
    }
    out.push(b"MGTPE"[unit]);
}

fn write_date(out: &mut Vec<u8>, date: Date) {
    digits(out, u64::from(date.year().unsigned_abs()), 4);
    out.push(b'-');
    digits(out, u64::from(date.month().unsigned_abs()), 2);
    out.push(b'-');
    digits(out, u64::from(date.day().unsigned_abs()), 2);
}

fn write_time(out: &mut Vec<u8>, time: jiff::civil::Time, exact: Timestamp) {
    for (unit, after) in [(time.hour(), b':'), (time.minute(), b':'), (time.second(), b'.')] {
        digits(out, u64::from(unit.unsigned_abs()), 2);
        out.push(after);
    }
    digits(out, exact.millis() % 1000, 3);
}

/// How wide the columns of some records must be.
struct Needs {
    /// Of each column when counts are exact and when they are compact.
    exact: [usize; COLUMNS],
    compact: [usize; COLUMNS],
    /// The longest source and destination among IPv4 records, and whether most records are IPv4.
    ipv4: [usize; 2],
    mostly_ipv4: bool,
}

impl Needs {
    /// What suffices for most records, where they are not known beforehand.
    fn unknown() -> Needs {
        let common = [0, 7, 5, LONGEST_IPV4_ENDPOINT, LONGEST_IPV4_ENDPOINT, 7, 9, 8, 6];
        let mut compact = common;
        (compact[PACKETS], compact[OCTETS]) = (6, 6);
        Needs { exact: common, compact, ipv4: [LONGEST_IPV4_ENDPOINT; 2], mostly_ipv4: true }
    }

    fn of(records: &[FlowRecord], cells: &mut Cells) -> Needs {
        let mut needs =
            Needs { exact: [0; COLUMNS], compact: [0; COLUMNS], ipv4: [0; 2], mostly_ipv4: false };
        let mut ipv4_records = 0;
        for record in records {
            for (compact, widths) in [(false, &mut needs.exact), (true, &mut needs.compact)] {
                cells.fill(record, compact);
                for (width, cell) in widths.iter_mut().zip(&cells.0) {
                    *width = cell.len().max(*width);
                }
            }
            if record.ip_version == IpVersion::V4 {
                ipv4_records += 1;
                needs.ipv4[0] = needs.ipv4[0].max(cells.0[SOURCE].len());
                needs.ipv4[1] = needs.ipv4[1].max(cells.0[DESTINATION].len());
            }
        }
        needs.mostly_ipv4 = ipv4_records > 0 && ipv4_records >= records.len() / 2;
        needs
    }
}

/// How a row is laid out.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Layout {
    /// The start holds the date; else dates stand on lines of their own.
    dated: bool,
    /// Counts are held to six characters, ICMP types to numbers.
    compact: bool,
    /// Spaces between columns.
    gap: usize,
    /// The destination stands under the source in every row; else only in those that are too long for their columns.
    folded: bool,
    widths: [usize; COLUMNS],
    /// By how much the cells of a row may be wider than their columns; none where nothing limits a line.
    spare: Option<usize>,
}

impl Layout {
    fn choose(needs: &Needs, terminal_width: Option<usize>) -> Layout {
        let Some(terminal_width) = terminal_width else { return Layout::new(needs, true, false, 2, false) };
        let layout = Layout::fitting(needs, terminal_width);
        Layout { spare: Some(terminal_width.saturating_sub(layout.line_width())), ..layout }
    }

    /// The first of the layouts, roomy ones first, that fits the terminal.
    fn fitting(needs: &Needs, terminal_width: usize) -> Layout {
        let one_line = |dated, compact, gap| Layout::new(needs, dated, compact, gap, false);
        let roomy_to_tight = [(true, false, 2), (false, false, 2), (false, true, 2), (false, true, 1)];
        for (dated, compact, gap) in roomy_to_tight {
            let layout = one_line(dated, compact, gap);
            if layout.line_width() <= terminal_width {
                return layout;
            }
        }
        if needs.mostly_ipv4 {
            // Few long addresses do not make every other row a folded one.
            for (dated, compact, gap) in roomy_to_tight {
                let mut layout = one_line(dated, compact, gap);
                layout.widths[SOURCE] = needs.ipv4[0].max(TITLES[SOURCE].len());
                layout.widths[DESTINATION] = needs.ipv4[1].max(TITLES[DESTINATION].len());
                if layout.line_width() <= terminal_width {
                    return layout;
                }
            }
        }
        let mut layout = Layout::new(needs, false, true, 1, true);
        for (compact, gap) in [(false, 2), (true, 2), (true, 1)] {
            layout = Layout::new(needs, false, compact, gap, true);
            // Whatever the numbers leave goes to the addresses; a longer one pushes the numbers to the line below.
            let others = layout.line_width() - layout.widths[SOURCE];
            let left = terminal_width.saturating_sub(others);
            let longest = layout.widths[SOURCE].max(layout.widths[DESTINATION] + ARROW.len());
            let title = FOLDED_TITLE.len().min(left).max(SHORT_FOLDED_TITLE.len());
            layout.widths[SOURCE] = left.min(longest).max(title);
            if left >= LONGEST_IPV4_ENDPOINT + ARROW.len() || left >= longest {
                break;
            }
        }
        layout
    }

    fn new(needs: &Needs, dated: bool, compact: bool, gap: usize, folded: bool) -> Layout {
        let mut widths = if compact { needs.compact } else { needs.exact };
        widths[START] = if dated { DATED_START } else { UNDATED_START };
        let mut layout = Layout { dated, compact, gap, folded, widths, spare: None };
        for (column, title) in layout.title_texts().iter().enumerate() {
            layout.widths[column] = layout.widths[column].max(title.len());
        }
        layout
    }

    fn title_texts(&self) -> [&'static str; COLUMNS] {
        let mut titles = if self.compact { SHORT_TITLES } else { TITLES };
        if self.folded {
            let fits = self.widths[SOURCE] >= FOLDED_TITLE.len();
            titles[SOURCE] = if fits { FOLDED_TITLE } else { SHORT_FOLDED_TITLE };
        }
        titles
    }

    fn line_width(&self) -> usize {
        let columns = || (0..COLUMNS).filter(|column| !(self.folded && *column == DESTINATION));
        columns().map(|column| self.widths[column]).sum::<usize>() + self.gap * (columns().count() - 1)
    }

    /// Makes columns as wide as these cells: for rows that no one could measure before the first was written.
    fn widen(&mut self, cells: &Cells) {
        for (width, cell) in self.widths.iter_mut().zip(&cells.0) {
            *width = cell.len().max(*width);
        }
    }

    fn titles(&self, out: &mut Vec<u8>) {
        let titles = self.title_texts().map(str::as_bytes);
        self.front(out, titles);
        out.resize(out.len() + self.gap, b' ');
        pad_right(out, titles[SOURCE], self.widths[SOURCE]);
        if !self.folded {
            out.resize(out.len() + self.gap, b' ');
            pad_right(out, titles[DESTINATION], self.widths[DESTINATION]);
        }
        self.back(out, titles);
    }

    fn row(&self, out: &mut Vec<u8>, cells: &Cells) {
        let cells: [&[u8]; COLUMNS] = std::array::from_fn(|column| cells.0[column].as_slice());
        let [source, destination] = [cells[SOURCE], cells[DESTINATION]];
        let excess = self.excess(&cells);
        self.front(out, cells);
        out.resize(out.len() + self.gap, b' ');
        if !self.folded
            && excess == 0
            && source.len() <= self.widths[SOURCE]
            && destination.len() <= self.widths[DESTINATION]
        {
            pad_right(out, source, self.widths[SOURCE]);
            out.resize(out.len() + self.gap, b' ');
            pad_right(out, destination, self.widths[DESTINATION]);
            return self.back(out, cells);
        }
        // The numbers stand beside the first of source and destination that leaves them their columns, else below.
        let before = self.widths[..SOURCE].iter().map(|width| width + self.gap).sum::<usize>();
        let mut room = self.widths[SOURCE];
        if !self.folded {
            room += self.gap + self.widths[DESTINATION];
        }
        let room = room.saturating_sub(excess);
        let mut numbers_stand = false;
        if source.len() <= room {
            pad_right(out, source, room);
            self.back(out, cells);
            numbers_stand = true;
        } else {
            out.extend_from_slice(source);
            out.push(b'\n');
        }
        out.resize(out.len() + before, b' ');
        let line = out.len();
        out.extend_from_slice(ARROW.as_bytes());
        out.extend_from_slice(destination);
        if numbers_stand {
            out.push(b'\n');
        } else if out.len() - line <= room {
            out.resize(line + room, b' ');
            self.back(out, cells);
        } else {
            out.push(b'\n');
            out.resize(out.len() + before + room, b' ');
            self.back(out, cells);
        }
    }

    /// By how much a row of these cells, its addresses aside, would be too long for the terminal.
    fn excess(&self, cells: &[&[u8]; COLUMNS]) -> usize {
        let Some(spare) = self.spare else { return 0 };
        let numbers = (0..COLUMNS).filter(|column| ![SOURCE, DESTINATION].contains(column));
        let wider: usize = numbers.map(|at| cells[at].len().saturating_sub(self.widths[at])).sum();
        wider.saturating_sub(spare)
    }

    /// The columns before the addresses.
    fn front(&self, out: &mut Vec<u8>, cells: [&[u8]; COLUMNS]) {
        pad_right(out, cells[START], self.widths[START]);
        out.resize(out.len() + self.gap, b' ');
        pad_left(out, cells[DURATION], self.widths[DURATION]);
        out.resize(out.len() + self.gap, b' ');
        pad_right(out, cells[PROTOCOL], self.widths[PROTOCOL]);
    }

    /// The columns after the addresses, and the end of the line.
    fn back(&self, out: &mut Vec<u8>, cells: [&[u8]; COLUMNS]) {
        for column in [PACKETS, OCTETS] {
            out.resize(out.len() + self.gap, b' ');
            pad_left(out, cells[column], self.widths[column]);
        }
        out.resize(out.len() + self.gap, b' ');
        pad_right(out, cells[FLAGS], self.widths[FLAGS]);
        out.resize(out.len() + self.gap, b' ');
        out.extend_from_slice(cells[END]);
        out.push(b'\n');
    }
}

pub(super) fn pad_right(out: &mut Vec<u8>, text: &[u8], width: usize) {
    let end = out.len() + text.len().max(width);
    out.extend_from_slice(text);
    out.resize(end, b' ');
}

pub(super) fn pad_left(out: &mut Vec<u8>, text: &[u8], width: usize) {
    out.resize(out.len() + width.saturating_sub(text.len()), b' ');
    out.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(value: u64) -> String {
        let mut out = Vec::new();
        count(&mut out, value, true);
        String::from_utf8(out).unwrap()
    }

    fn lasted(nanos: u64) -> String {
        let mut out = Vec::new();
        duration(&mut out, nanos, true);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_compact_count_is_exact_up_to_six_digits_and_then_rounded_down() {
        assert_eq!(counted(0), "0");
        assert_eq!(counted(999_999), "999999");
        assert_eq!(counted(1_000_000), "1.00M");
        assert_eq!(counted(9_999_999), "9.99M");
        assert_eq!(counted(12_345_678), "12.3M");
        assert_eq!(counted(999_999_999), "999M");
        assert_eq!(counted(1_000_000_000), "1.00G");
        assert_eq!(counted(u64::MAX), "18.4E");
    }

    #[test]
    fn a_duration_takes_at_most_seven_characters_where_room_is_short() {
        assert_eq!(lasted(0), "0.000s");
        assert_eq!(lasted(59_999_999_999), "59.999s");
        assert_eq!(lasted(65_000_000_000), "1m05s");
        assert_eq!(lasted(3_723_000_000_000), "1h02m");
        assert_eq!(lasted(90_000_000_000_000), "1d01h");
        assert_eq!(lasted(86_399_999_999_999_999), "999d23h");
        assert_eq!(lasted(86_400_000_000_000_000), "1000d");
        assert_eq!(lasted(u64::MAX), "213503d");
    }
}
