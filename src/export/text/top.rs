//! The heaviest talkers: the source addresses that sent the most.
//!
//! A record goes one way, so the octets of a source address are what that host sent; a conversation of two hosts counts
//! for each by its own half. (Pairs of addresses were the other choice; who asks for talkers asks which host it is.)
//!
//! Sums are exact as long as no more than [`MOST_ADDRESSES`] addresses are met. Beyond that, which takes a scan or a
//! flood of forged sources, the lighter half is given up and its sums go to one line, `(others)`; the list then says
//! that it may be short.

use std::collections::HashMap;

use super::names;
use super::output::Output;
use super::table::{pad_left, pad_right};
use super::write::{address, integer};
use super::{TextFormat, TopBy};
use crate::decode::IpVersion;
use crate::export::Tally;
use crate::flow::FlowRecord;

/// Addresses whose sums are held; about 100 octets each.
const MOST_ADDRESSES: usize = 1_000_000;

type Address = (IpVersion, [u8; 16]);

#[derive(Clone, Copy, Default)]
struct Sums {
    flows: u64,
    packets: u64,
    octets: u64,
}

impl Sums {
    fn add(&mut self, other: Sums) {
        self.flows += other.flows;
        self.packets = self.packets.saturating_add(other.packets);
        self.octets = self.octets.saturating_add(other.octets);
    }

    fn by(&self, by: TopBy) -> u64 {
        match by {
            TopBy::Octets => self.octets,
            TopBy::Packets => self.packets,
            TopBy::Flows => self.flows,
        }
    }
}

pub(super) struct Talkers {
    format: TextFormat,
    most: usize,
    by: TopBy,
    most_addresses: usize,
    talkers: HashMap<Address, Sums>,
    all: Sums,
    /// The records that stand in the sums.
    records: Tally,
    /// The sums of addresses that were given up.
    others: Sums,
}

impl Talkers {
    pub(super) fn new(format: TextFormat, most: usize, by: TopBy) -> Talkers {
        let most_addresses = MOST_ADDRESSES.max(most.saturating_mul(2));
        let (all, others) = (Sums::default(), Sums::default());
        let records = Tally::default();
        Talkers { format, most, by, most_addresses, talkers: HashMap::new(), all, records, others }
    }

    pub(super) fn take(&mut self, records: &[FlowRecord]) {
        for record in records {
            let sums = Sums { flows: 1, packets: record.packets, octets: record.octets };
            self.talkers.entry((record.ip_version, record.source)).or_default().add(sums);
            self.all.add(sums);
            self.records.add(record);
            if self.talkers.len() > self.most_addresses {
                self.give_up_the_lighter_half();
            }
        }
    }

    fn give_up_the_lighter_half(&mut self) {
        let mut weights: Vec<u64> = self.talkers.values().map(|sums| sums.by(self.by)).collect();
        let middle = weights.len() / 2;
        let median = *weights.select_nth_unstable(middle).1;
        // Of those that weigh as much as the median, as many go as it takes to be rid of half.
        let mut equal = middle + 1 - weights[..middle].iter().filter(|weight| **weight < median).count();
        let (by, others) = (self.by, &mut self.others);
        self.talkers.retain(|_, sums| {
            let weight = sums.by(by);
            let goes = weight < median || (weight == median && equal > 0);
            if goes {
                equal -= usize::from(weight == median);
                others.add(*sums);
            }
            !goes
        });
    }

    pub(super) fn finish(&mut self, output: &mut Output) {
        let mut ranked: Vec<(Address, Sums)> = std::mem::take(&mut self.talkers).into_iter().collect();
        // Equals by address, so that the same capture always gives the same list.
        ranked.sort_unstable_by(|(left_address, left), (right_address, right)| {
            (right.by(self.by), left_address.0 as u8, left_address.1).cmp(&(
                left.by(self.by),
                right_address.0 as u8,
                right_address.1,
            ))
        });
        let addresses = ranked.len();
        ranked.truncate(self.most);
        match self.format {
            TextFormat::Csv => self.csv(&ranked, output.buffer()),
            TextFormat::Json => self.json(&ranked, output.buffer()),
            TextFormat::Table => self.table(&ranked, addresses, output.buffer()),
        }
        // They stand in the list's sums: sent once that is written, and not before.
        output.count(self.records);
    }

    fn csv(&self, ranked: &[(Address, Sums)], out: &mut Vec<u8>) {
        out.extend_from_slice(b"src,flows,packets,octets\n");
        for ((version, octets), sums) in ranked {
            address(out, *version, octets);
            for value in [sums.flows, sums.packets, sums.octets] {
                out.push(b',');
                integer(out, value);
            }
            out.push(b'\n');
        }
    }

    fn json(&self, ranked: &[(Address, Sums)], out: &mut Vec<u8>) {
        for ((version, octets), sums) in ranked {
            out.extend_from_slice(b"{\"src\":\"");
            address(out, *version, octets);
            out.push(b'"');
            for (key, value) in [("flows", sums.flows), ("packets", sums.packets), ("octets", sums.octets)] {
                out.extend_from_slice(format!(",\"{key}\":").as_bytes());
                integer(out, value);
            }
            out.extend_from_slice(b"}\n");
        }
    }

    fn table(&self, ranked: &[(Address, Sums)], addresses: usize, out: &mut Vec<u8>) {
        let shown = ranked.len();
        let by = match self.by {
            TopBy::Octets => "octets",
            TopBy::Packets => "packets",
            TopBy::Flows => "flows",
        };
        let title = if self.others.flows == 0 {
            format!("Top {shown} of {addresses} source addresses by {by} sent\n")
        } else {
            format!(
                "Top {shown} source addresses by {by} sent; more than {} were met, so sums may be short\n",
                self.most_addresses
            )
        };
        out.extend_from_slice(title.as_bytes());
        let mut lines: Vec<[Vec<u8>; 5]> =
            vec![["Source", "Flows", "Packets", "Octets", "Share"].map(|title| title.as_bytes().to_vec())];
        for ((version, octets), sums) in ranked {
            let mut name = Vec::new();
            address(&mut name, *version, octets);
            lines.push(self.line(name, sums));
        }
        if self.others.flows > 0 {
            lines.push(self.line(b"(others)".to_vec(), &self.others));
        }
        lines.push(self.line(b"(all)".to_vec(), &self.all));
        let widths: [usize; 5] =
            std::array::from_fn(|column| lines.iter().map(|line| line[column].len()).max().unwrap_or(0));
        for line in &lines {
            pad_right(out, &line[0], widths[0]);
            for column in 1..5 {
                out.extend_from_slice(b"  ");
                pad_left(out, &line[column], widths[column]);
            }
            out.push(b'\n');
        }
    }

    fn line(&self, name: Vec<u8>, sums: &Sums) -> [Vec<u8>; 5] {
        let number = |value: u64| {
            let mut out = Vec::new();
            integer(&mut out, value);
            out
        };
        let share = names::share(sums.by(self.by), self.all.by(self.by));
        [name, number(sums.flows), number(sums.packets), number(sums.octets), share.into_bytes()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::text::tests::{Written, ipv4_record};

    #[test]
    fn what_is_given_up_is_the_lighter_half_and_the_sums_still_close() {
        let mut talkers = Talkers::new(TextFormat::Table, 2, TopBy::Octets);
        talkers.most_addresses = 10;
        let (mut output, written) = Written::output();
        for last in 0..40u8 {
            let mut record = ipv4_record();
            record.source[3] = last;
            record.octets = if last == 7 { 1_000_000 } else { 100 };
            talkers.take(&[record]);
        }
        assert!(talkers.talkers.len() <= 10);
        talkers.finish(&mut output);
        output.close();
        let text = written.text();
        assert!(text.contains("192.0.2.7 "), "{text}");
        assert!(text.contains("sums may be short"), "{text}");
        assert!(text.contains("(others)"), "{text}");
        assert_eq!(talkers.all.octets, 1_003_900);
        assert_eq!(output.delivery().sent.records, 40);
    }
}
