//! Messages and what is in them in; the transport's octets out, and the account of what became of each record.
//!
//! This is the one place where a record turns from exported into sent or lost, where a failure is kept for the
//! report, and where a change of the collector's state is logged.

use std::io;
use std::time::{Duration, Instant};

use log::{error, info, warn};

use crate::export::message::Message;
use crate::export::transport::{Failure, Lost, NoSession, Session, Transport};
use crate::export::{Delivery, Tally};
use crate::flow::FlowRecord;
use crate::time::Timestamp;

/// How long a collector must have been reached without a failure until the log says so: refusals of a dead UDP
/// collector come with every other message.
const STEADY: Duration = Duration::from_secs(10);

/// A destination of messages.
pub struct Outlet {
    name: String,
    transport: Box<dyn Transport>,
    delivery: Delivery,
    /// What was sent since the transport last vouched for it.
    unsure: Sent,
    first_lost: Option<Timestamp>,
    last_lost: Option<Timestamp>,
    failure: Option<String>,
    /// While failing: when it failed last.
    failed: Option<Instant>,
}

#[derive(Clone, Copy, Default)]
struct Sent {
    tally: Tally,
    messages: u64,
    octets: u64,
}

/// Whether there is a session to send in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// The one of before.
    Same,
    /// A new one: numbering starts again, templates go first (RFC 7011 §3.1, §8.1).
    New,
    /// None.
    Down,
}

impl Outlet {
    /// An outlet named `name` in messages to the user.
    pub fn new(name: String, transport: Box<dyn Transport>) -> Outlet {
        Outlet {
            name,
            transport,
            delivery: Delivery::default(),
            unsure: Sent::default(),
            first_lost: None,
            last_lost: None,
            failure: None,
            failed: None,
        }
    }

    /// The longest message it takes, in octets.
    pub fn limit(&self) -> usize {
        self.transport.limit()
    }

    /// Whether templates must be sent again from time to time (RFC 7011 §8.4).
    pub fn forgets_templates(&self) -> bool {
        self.transport.forgets_templates()
    }

    /// Whether messages go to a file.
    pub fn is_file(&self) -> bool {
        self.transport.is_file()
    }

    /// What became of the records.
    pub fn delivery(&self) -> Delivery {
        self.delivery
    }

    /// When records were first and last lost.
    pub fn lost_between(&self) -> (Option<Timestamp>, Option<Timestamp>) {
        (self.first_lost, self.last_lost)
    }

    /// What went wrong first.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Begins a session if there is none and one is due. What was sent in one that broke off is lost as of `now`.
    pub fn ready(&mut self, now: Timestamp) -> Ready {
        let mut session = self.transport.session();
        if let Err(NoSession::Broken(error)) = &session {
            self.take_back(now);
            self.fail("sending to", error);
            session = self.transport.session();
        }
        let (doing, error) = match session {
            Ok(Session::Same) => return Ready::Same,
            Ok(Session::New) => return Ready::New,
            Ok(Session::Down) => return Ready::Down,
            Err(NoSession::NotBegun(error)) => ("connecting to", error),
            Err(NoSession::Ended(error) | NoSession::Broken(error)) => ("sending to", error),
        };
        self.fail(doing, &error);
        Ready::Down
    }

    /// Counts records that the format cannot carry.
    pub fn unsupported(&mut self, record: &FlowRecord) {
        self.delivery.unsupported.add(record);
    }

    /// Counts records for which there is no session.
    pub fn lose(&mut self, tally: Tally, now: Timestamp) {
        if tally.records > 0 {
            self.delivery.lost += tally;
            self.first_lost.get_or_insert(now);
            self.last_lost = Some(now);
        }
    }

    /// Sends a message that holds the records of `tally`; false if it is known to be lost. What `message` is then, is of no
    /// meaning.
    pub fn send(&mut self, message: &mut Message, tally: Tally, now: Timestamp) -> bool {
        let this = Sent { tally, messages: 1, octets: message.len() as u64 };
        match self.transport.send(message) {
            Ok(vouched_for_earlier) => {
                self.count(this);
                self.unsure = if vouched_for_earlier { this } else { self.unsure.and(this) };
                self.recover();
                true
            }
            Err(Failure { error, lost }) => {
                let sent = matches!(lost, Lost::Earlier);
                match lost {
                    Lost::This => self.lose(tally, now),
                    Lost::Earlier => {
                        self.take_back(now);
                        self.count(this);
                        self.unsure = this;
                    }
                    Lost::Both => {
                        self.take_back(now);
                        self.lose(tally, now);
                    }
                }
                self.fail("sending to", &error);
                sent
            }
        }
    }

    /// Sends on what the transport holds back.
    pub fn flush(&mut self, now: Timestamp) {
        match self.transport.flush() {
            Ok(()) if self.transport.flush_vouches() => self.unsure = Sent::default(),
            Ok(()) => {}
            Err(error) => {
                self.take_back(now);
                self.fail("writing to", &error);
            }
        }
    }

    /// Sends on what is held back and opens a file again.
    pub fn reopen(&mut self, now: Timestamp) {
        self.flush(now);
        if let Err(error) = self.transport.reopen() {
            warn!("opening {} again, the old file stays in use: {error}", self.name);
        }
    }

    /// Closes the transport, after which the account is final.
    pub fn close(&mut self, now: Timestamp) {
        match self.transport.close() {
            Ok(()) if self.transport.flush_vouches() => self.unsure = Sent::default(),
            Ok(()) => {}
            Err(error) => {
                self.take_back(now);
                self.fail("sending the last messages to", &error);
            }
        }
    }

    fn count(&mut self, sent: Sent) {
        self.delivery.sent += sent.tally;
        self.delivery.messages += sent.messages;
        self.delivery.message_octets += sent.octets;
    }

    /// What was sent and not vouched for did not arrive after all.
    fn take_back(&mut self, now: Timestamp) {
        let unsure = std::mem::take(&mut self.unsure);
        self.delivery.sent -= unsure.tally;
        self.delivery.messages -= unsure.messages;
        self.delivery.message_octets -= unsure.octets;
        self.lose(unsure.tally, now);
    }

    fn fail(&mut self, doing: &str, error: &io::Error) {
        if self.transport.ends_quietly(error) {
            return;
        }
        let failure = format!("{doing} {}: {error}", self.name);
        if self.failed.replace(Instant::now()).is_none() {
            error!("{failure}");
        }
        self.failure.get_or_insert(failure);
    }

    fn recover(&mut self) {
        if self.failed.is_some_and(|failed| failed.elapsed() >= STEADY) {
            self.failed = None;
            info!("sending to {} again", self.name);
        }
    }
}

impl Sent {
    fn and(self, other: Sent) -> Sent {
        let mut tally = self.tally;
        tally += other.tally;
        Sent { tally, messages: self.messages + other.messages, octets: self.octets + other.octets }
    }
}
