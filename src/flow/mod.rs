//! The Metering Process (RFC 7011 §2): packets in, Flow Records out.

pub mod expiry;
pub mod record;

pub use expiry::EndReason;
pub use record::FlowRecord;
