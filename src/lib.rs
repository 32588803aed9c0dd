//! flowtap, a packet-capture flow meter: frames in, exact Flow Records out (RFC 5470, RFC 7011).
//!
//! # The path of a packet
//!
//! ```text
//!   interface / capture file
//!         │ Frame<'_>        octets, wire length, timestamp, link type
//!         ▼
//!    capture ─► decode ─► flow (key → shard's table → expiry) ─► export (encoder → transport) ─► collector
//!                 Packet                     FlowRecord                    message octets
//! ```
//!
//! Four values are handed on, each plain data, each defined by the stage that makes it: [`capture::Frame`],
//! [`decode::Packet`], [`flow::FlowRecord`] and the encoder's octets. A stage imports the value before it and nothing
//! after it. No stage knows the flags, the threads, or the stage after next.
//!
//! # Code map
//!
//! The modules below stand in the order data meets them. [`pipeline`] puts the stages on threads, [`reading`] feeds
//! them capture files, [`sensor`] keeps them at live interfaces and [`host`] on a host, [`gauges`] shows what they do.
//! [`cli`] and [`config`] make their settings of what a user types, [`settings`] of what a configuration file says,
//! [`stats`] adds up what they counted; [`printable`] keeps names from outside from driving the terminal. [`collect`]
//! reads IPFIX back and shares nothing with the encoder but the rows of [`export::element`].
//!
//! # Invariants
//!
//! - Packets carry time; no stage asks the clock. A file gives the same records every run and at every shard count.
//! - What is in a record does not depend on when a sweep runs, only on packets and timeouts.
//! - Every frame is counted once: in a record or under one reason. Packets metered = packets in records sent + in
//!   records lost + in live Flows.
//! - A Flow lives in one shard for life. Nothing locks on the packet path but fragments.
//! - [`decode`] never fails loudly: the octets are the network's. [`flow`] does not know IPFIX; [`export`] does not
//!   know packets.
#![warn(missing_docs)]

pub mod time;

pub mod capture;

pub mod decode;

pub mod flow;

pub mod export;

pub mod collect;

pub mod gauges;
pub mod host;
pub mod pipeline;

pub mod reading;
pub mod sensor;

pub mod stats;

pub mod cli;
pub mod config;
pub mod generated;
mod prefetch;
pub mod printable;
pub mod progress;
pub mod settings;
pub mod signal;

// The unit tests are skipped as those in `tests/` are.
#[cfg(test)]
#[path = "../tests/common/needs.rs"]
mod needs;
