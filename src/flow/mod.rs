//! The Metering Process (RFC 7011 §2): packets in, Flow Records out.
//!
//! A Flow is unidirectional: the packets that share source and destination address, protocol and ports ([`key`]). It
//! ends by time, by TCP's own end, by force or for want of room ([`expiry`]). One [`FlowTable`] is one shard: it owns
//! its Flows for life and nothing in it locks. Every rule goes by packet time alone, so that the records are the
//! same however many shards there are and whenever they sweep: each packet brings the clock as it stood when it was
//! read ([`Observations`]), which [`clock::ObservationClock`] keeps.
//!
//! ```text
//! Packet ─ clock, hash ─► Observations ─ deal ─► FlowTable ─► FlowRecord
//!                                                index (hash → slot) ─► entries ─► wheel (deadlines)
//! ```
//!
//! What a table keeps of its Flows lies in arrays that are reserved whole and become memory as they are used; a thread that
//! would else wait for the table makes the next of it ready ([`upcoming`]).

pub mod clock;
mod entry;
pub mod expiry;
mod index;
pub mod key;
pub(crate) mod memory;
pub mod observation;
pub mod record;
mod slot;
pub mod table;
pub mod upcoming;
mod wheel;

pub use clock::{ClockStep, ObservationClock};
pub use expiry::{EndReason, Timeouts};
pub use key::{KeyHash, KeyHasher};
pub use observation::Observations;
pub use record::FlowRecord;
pub use table::{FlowTable, TableError, TableOptions};
pub use upcoming::UpcomingMemory;
