//! flowtap: frames in, Flow Records out.
#![warn(missing_docs)]

pub mod time;

pub mod capture;
pub mod decode;
pub mod export;
pub mod flow;

pub mod collect;
