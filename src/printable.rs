//! Words from outside (names of files and interfaces, strings in records) made fit for a terminal: what would move its
//! cursor, change its colours or begin a line of its own is shown as an escape instead.

use std::borrow::Cow;

/// The text on one line: each control character as `\n`, `\t`, `\x1b` or, beyond U+007F, `\u{9b}`.
pub fn printable(text: &str) -> Cow<'_, str> {
    escaped(text, |character| character.is_control())
}

/// The same with its line ends kept, for text that has lines of its own.
pub fn printable_lines(text: &str) -> Cow<'_, str> {
    escaped(text, |character| character.is_control() && character != '\n')
}

fn escaped(text: &str, is_unfit: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_unfit) {
        return Cow::Borrowed(text);
    }
    let mut fit = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match character {
            '\n' | '\r' | '\t' if is_unfit(character) => fit.extend(character.escape_default()),
            '\0'..='\x7f' if is_unfit(character) => fit.push_str(&format!("\\x{:02x}", u32::from(character))),
            _ if is_unfit(character) => fit.extend(character.escape_unicode()),
            _ => fit.push(character),
        }
    }
    Cow::Owned(fit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_controls_a_terminal_is_escaped_and_all_else_kept() {
        assert!(matches!(printable("Grüße, 世界.pcap"), Cow::Borrowed(_)));
        assert_eq!(printable("a\x1b[31mb\x07\x7f.pcap"), "a\\x1b[31mb\\x07\\x7f.pcap");
        assert_eq!(printable("a\nflowtap: all is well\r\u{9b}2J"), "a\\nflowtap: all is well\\r\\u{9b}2J");
        assert_eq!(printable_lines("eth0\x1b\nlo\n"), "eth0\\x1b\nlo\n");
    }
}
