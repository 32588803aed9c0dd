//! The table of fields that flowtap exports, for a terminal and for the README.
//!
//! It is made from the rows the templates are made from, so that it cannot say anything else than what is sent.

use super::table::{pad_left, pad_right};
use crate::export::element::{DataType, Element};

/// One field of the table: its element, its NetFlow v9 type where it has one, and a note.
pub type ListedElement<'a> = (&'a Element, Option<u16>, &'a str);

const TITLES: [&str; 7] = ["Element", "Id", "v9", "Type", "Octets", "Unit", "Note"];

/// True for columns of numbers.
const NUMBERS: [bool; 7] = [false, true, true, false, true, false, false];

/// Aligned columns under a line of titles.
pub fn elements_as_text<'a>(elements: impl IntoIterator<Item = ListedElement<'a>>) -> String {
    lines(elements, |out, line, widths| {
        for (column, cell) in line.iter().enumerate() {
            pad(out, column, cell, widths[column]);
            out.extend_from_slice(b"  ");
        }
        while out.last() == Some(&b' ') {
            out.pop();
        }
    })
}

/// A Markdown table, aligned in its source too.
pub fn elements_as_markdown<'a>(elements: impl IntoIterator<Item = ListedElement<'a>>) -> String {
    let mut first = true;
    lines(elements, |out, line, widths| {
        for (column, cell) in line.iter().enumerate() {
            out.extend_from_slice(b"| ");
            pad(out, column, cell, widths[column]);
            out.push(b' ');
        }
        out.push(b'|');
        if std::mem::take(&mut first) {
            out.push(b'\n');
            for (column, width) in widths.iter().enumerate() {
                out.extend_from_slice(b"| ");
                out.resize(out.len() + width - usize::from(NUMBERS[column]), b'-');
                out.extend_from_slice(if NUMBERS[column] { b": " } else { b" " });
            }
            out.push(b'|');
        }
    })
}

fn pad(out: &mut Vec<u8>, column: usize, cell: &str, width: usize) {
    let pad = if NUMBERS[column] { pad_left } else { pad_right };
    pad(out, cell.as_bytes(), width);
}

fn lines<'a>(
    elements: impl IntoIterator<Item = ListedElement<'a>>,
    mut write: impl FnMut(&mut Vec<u8>, &[String; 7], &[usize; 7]),
) -> String {
    let mut lines = vec![TITLES.map(str::to_owned)];
    lines.extend(elements.into_iter().map(cells));
    let widths: [usize; 7] =
        std::array::from_fn(|column| lines.iter().map(|line| line[column].len()).max().unwrap_or(0));
    let mut out = Vec::new();
    for line in &lines {
        write(&mut out, line, &widths);
        out.push(b'\n');
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn cells((element, v9_type, note): ListedElement<'_>) -> [String; 7] {
    let id = match element.enterprise {
        0 => element.id.to_string(),
        enterprise => format!("{enterprise}/{}", element.id),
    };
    [
        element.name.to_owned(),
        id,
        v9_type.map(|v9_type| v9_type.to_string()).unwrap_or_else(|| "-".to_owned()),
        data_type_name(element.data_type).to_owned(),
        element.length.to_string(),
        element.unit.to_owned(),
        note.to_owned(),
    ]
}

/// The name of RFC 7012 §3.1.
fn data_type_name(data_type: DataType) -> &'static str {
    match data_type {
        DataType::Unsigned8 => "unsigned8",
        DataType::Unsigned16 => "unsigned16",
        DataType::Unsigned32 => "unsigned32",
        DataType::Unsigned64 => "unsigned64",
        DataType::Ipv4Address => "ipv4Address",
        DataType::Ipv6Address => "ipv6Address",
        DataType::DateTimeSeconds => "dateTimeSeconds",
        DataType::DateTimeMilliseconds => "dateTimeMilliseconds",
        DataType::DateTimeMicroseconds => "dateTimeMicroseconds",
        DataType::DateTimeNanoseconds => "dateTimeNanoseconds",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::element::{INITIAL_TCP_FLAGS, OCTET_DELTA_COUNT};

    const LISTED: [ListedElement<'static>; 2] =
        [(&OCTET_DELTA_COUNT, Some(1), "IP octets"), (&INITIAL_TCP_FLAGS, None, "")];

    #[test]
    fn the_text_table_is_aligned_and_ends_no_line_with_spaces() {
        let text = elements_as_text(LISTED);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0], "Element               Id  v9  Type        Octets  Unit    Note");
        assert_eq!(lines[1], "octetDeltaCount        1   1  unsigned64       8  octets  IP octets");
        assert_eq!(lines[2], "initialTCPFlags  6871/14   -  unsigned16       2");
    }

    #[test]
    fn the_markdown_table_has_a_line_under_its_titles() {
        let text = elements_as_markdown(LISTED);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "| Element         |      Id | v9 | Type       | Octets | Unit   | Note      |");
        assert_eq!(lines[1], "| --------------- | ------: | -: | ---------- | -----: | ------ | --------- |");
        assert_eq!(lines[2], "| octetDeltaCount |       1 |  1 | unsigned64 |      8 | octets | IP octets |");
    }
}
