//! When a Flow ends, and why.

/// flowEndReason (IANA Information Element 136).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum EndReason {
    /// The idle timeout passed without a packet.
    Idle = 1,
    /// The active timeout passed since the first packet.
    Active = 2,
    /// The Flow was seen to end: FIN or RST.
    End = 3,
    /// Ended by the meter itself: end of input, shutdown, clock jump.
    Forced = 4,
    /// Ended to make room in the Flow table, or because a counter was full.
    LackOfResources = 5,
}
