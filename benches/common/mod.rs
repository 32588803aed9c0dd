//! Workloads for the benches, made from fixed seeds: the same octets in every run and on every machine.
//!
//! What they are made to resemble is said at each; none is a recording. Every workload comes with the sums that a right
//! run must come to, so that a wrong one cannot be the fastest.

#![allow(dead_code)] // each bench uses its part

pub mod capture;
pub mod frames;
pub mod packets;
pub mod records;

/// SplitMix64: eight octets of state, good enough for a workload, the same everywhere.
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }

    /// Whether something happens that does so `n` times in a hundred.
    pub fn percent(&mut self, n: u64) -> bool {
        self.below(100) < n
    }

    /// A number below `n` by `keys`.
    pub fn draw(&mut self, keys: Keys, n: u64) -> u64 {
        match keys {
            Keys::Uniform => self.below(n),
            // Zipf with exponent 1, as a continuous distribution: the rank is exp(u ln n).
            Keys::Zipf => {
                let unit = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
                let rank = (unit * (n as f64).ln()).exp() as u64;
                rank.clamp(1, n) - 1
            }
        }
    }
}

/// How packets are spread over flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// Every flow as often as any other: the worst case for caches.
    Uniform,
    /// The flow of rank r in proportion to 1/r: few flows have most of the packets.
    Zipf,
}

/// IP versions in a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    V4,
    V6,
    /// One flow in five is IPv6.
    Both,
}

/// The simple Internet mix of frame sizes: 7 of 60 octets, 4 of 590, 1 of 1514 (Ethernet header included).
pub fn imix(random: &mut Random) -> u32 {
    match random.below(12) {
        0..7 => 60,
        7..11 => 590,
        _ => 1514,
    }
}

/// Ends the program: a result was wrong, and figures of wrong results are worse than none.
#[track_caller]
pub fn check<T: PartialEq + std::fmt::Debug>(what: &str, found: T, expected: T) {
    assert!(found == expected, "{what}: {found:?}, where {expected:?} is right");
}
