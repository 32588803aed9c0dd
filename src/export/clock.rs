//! Records and ticks in; the time a message is stamped with (Export Time, RFC 7011 §3.1; UNIX Secs, RFC 3954 §5.1), out.

use crate::time::Timestamp;

/// Which time the messages of an exporter are of.
#[derive(Debug)]
pub struct ExportClock {
    source: Source,
    /// The time of the last message.
    last: Option<Timestamp>,
    /// What to stamp a message with before the first record.
    fallback: Timestamp,
    /// The deadline of the newest record in the message being filled.
    newest: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug)]
enum Source {
    /// The system clock, asked when a message leaves.
    Wall(fn() -> Timestamp),
    /// The newest record so far: never back (RFC 5655 §7.2).
    Packets,
    /// The newest record of the message: each message stands for itself.
    PacketsOfMessage,
}

impl ExportClock {
    fn new(source: Source) -> ExportClock {
        ExportClock { source, last: None, newest: None, fallback: Timestamp::EPOCH }
    }

    /// The system clock, which `now` reads.
    pub fn wall(now: fn() -> Timestamp) -> ExportClock {
        ExportClock::new(Source::Wall(now))
    }

    /// The packet clock, never going back.
    pub fn packets() -> ExportClock {
        ExportClock::new(Source::Packets)
    }

    /// The packet clock, going back where the capture's does: a NetFlow header must be near its records.
    pub fn packets_of_message() -> ExportClock {
        ExportClock::new(Source::PacketsOfMessage)
    }

    /// Whether messages may be sent because time has passed, and not for a record alone.
    ///
    /// Not into a file on the packet clock: ticks come as batches happen to end, and the same capture file is to give the
    /// same octets (by a pipe that falls silent in between, the same records). And not before the first record where only records tell the time: a NetFlow clock would boot at one
    /// time for the templates and at another for the flows.
    pub fn runs(&self) -> bool {
        match self.source {
            Source::Wall(_) => true,
            Source::Packets => false,
            Source::PacketsOfMessage => self.newest.or(self.last).is_some(),
        }
    }

    /// Takes note of records put into the message, the newest of which was due at `newest`.
    pub fn see(&mut self, newest: Timestamp) {
        self.newest = self.newest.max(Some(newest));
    }

    /// Takes note of the time, for messages of a run that saw no record.
    pub fn tick(&mut self, now: Timestamp) {
        self.fallback = now;
    }

    /// The time of a message that leaves now.
    pub fn stamp(&mut self) -> Timestamp {
        let stamp = match self.source {
            Source::Wall(now) => now(),
            Source::Packets => self.newest.max(self.last).unwrap_or(self.fallback),
            Source::PacketsOfMessage => self.newest.or(self.last).unwrap_or(self.fallback),
        };
        self.last = Some(stamp);
        stamp
    }

    /// The message is sent or given up.
    pub fn end_message(&mut self) {
        self.newest = None;
    }
}

/// When something was last done: now, if never; and no later than now, should the clock have stepped back, for else it would
/// not be done again until the clock comes round.
pub fn last_done(when: &mut Option<Timestamp>, now: Timestamp) -> Timestamp {
    let when = when.get_or_insert(now);
    *when = (*when).min(now);
    *when
}
