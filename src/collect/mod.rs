//! A Collecting Process for files (RFC 7011 §2, RFC 5655): IPFIX Messages of any exporter in, their records out.
//!
//! It shares no code with the exporter but the rows of [`element`](crate::export::element), so that reading back
//! what was written proves something.

mod flow;
pub mod ipfix;
mod json;
pub mod print;
mod registry;
pub mod value;

pub use flow::to_flow_records;
pub use ipfix::{DataRecord, Field, MessageReader, ReadError, Template};
pub use print::Printer;
pub use value::Value;
