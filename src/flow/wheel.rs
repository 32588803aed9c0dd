//! The timer wheel of a Flow table: which entries may have reached their deadline.
//!
//! A lazy wheel: a packet does not move its Flow's timer. When a timer comes up the table looks whether the deadline
//! has moved, and if so puts it back. A Flow whose deadline comes nearer (it is closing) gets a second timer; its entry
//! remembers which of them counts, and the other falls out when it comes up, or in a clean-up once such timers
//! outnumber the Flows.
//!
//! Time is cut into ticks of 2^n ns, so that one turn of the wheel spans the shortest of the idle timeout, the active
//! timeout and some minutes.

use std::io;

use bytemuck::{Pod, Zeroable};

use super::memory::{Pages, Region};
use crate::prefetch::{CACHE_LINE, prefetch_to_second_cache};

/// Ticks in one turn.
const TICKS: u64 = 4096;
/// What an entry that has no timer remembers.
pub(super) const NO_TIMER: u16 = u16::MAX;

const TIMERS_PER_CHUNK: usize = 31;
/// Timers that are taken at once: enough that what they name can be asked for well ahead.
const MOST_TAKEN: usize = 16 * TIMERS_PER_CHUNK;
const NO_CHUNK: u32 = u32::MAX;

/// Ticks ahead of which timers are asked for.
const ASKED_AHEAD: u64 = 4;

/// A place on the wheel: the tick modulo a turn.
pub(super) type Place = u16;

/// A tick that is still to come, within a turn.
#[derive(Clone, Copy)]
pub(super) struct Tick(u64);

impl Tick {
    /// Its place on the wheel.
    #[inline(always)]
    pub(super) fn place(self) -> Place {
        (self.0 % TICKS) as Place
    }
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(128))]
struct Chunk {
    timers: [u32; TIMERS_PER_CHUNK],
    /// The chunk after this one, which is full; of a free chunk, the next free one.
    next: u32,
}
const _: () = assert!(size_of::<Chunk>() == 2 * CACHE_LINE);

/// The timers of a place: the chunk that is being filled, and how many are in it.
///
/// How many does not stand in the chunk itself: a timer is put there without waiting for the line.
#[derive(Clone, Copy)]
struct Head {
    chunk: u32,
    length: u32,
}

impl Head {
    /// A chunk after another is full, if there is one.
    #[inline]
    fn full(chunk: u32) -> Head {
        Head { chunk, length: if chunk == NO_CHUNK { 0 } else { TIMERS_PER_CHUNK as u32 } }
    }
}

const EMPTY: Head = Head { chunk: NO_CHUNK, length: 0 };

pub(super) struct Wheel {
    heads: Box<[Head; TICKS as usize]>,
    /// Reserved for as many timers as there may be.
    chunks: Region<Chunk>,
    /// Chunks that were ever used.
    used: u32,
    free: u32,
    timers: usize,
    /// The last tick whose timers have come up.
    tick: u64,
    /// No timers stand between `tick` and this one.
    soonest: u64,
    tick_bits: u32,
}

impl Wheel {
    /// What the timers of a Flow take: now and then a second one.
    pub(super) const OCTETS_PER_FLOW: usize = 8;

    /// A wheel whose turn spans `longest_nanos`, for the timers of as many as `most` Flows.
    ///
    /// # Errors
    /// The kernel's word when it does not give the address space.
    pub(super) fn new(longest_nanos: u64, most: usize) -> io::Result<Wheel> {
        let tick_nanos = (longest_nanos / (TICKS - 3) + 1).next_power_of_two();
        // Twice what is cleaned up, and a chunk a place that is not full.
        let chunks = 2 * timers_cleaned(most) / TIMERS_PER_CHUNK + TICKS as usize;
        Ok(Wheel {
            heads: Box::new([EMPTY; TICKS as usize]),
            chunks: Region::reserve(chunks)?,
            used: 0,
            free: NO_CHUNK,
            timers: 0,
            tick: 0,
            soonest: 0,
            tick_bits: tick_nanos.trailing_zeros(),
        })
    }

    /// The tick whose timers come up first when `deadline` (ns) has been reached; a turn ahead at most.
    #[inline(always)]
    pub(super) fn tick(&self, deadline: u64) -> Tick {
        // Not `clamp`, which sees to it that its bounds are in order.
        Tick((deadline >> self.tick_bits).max(self.tick).min(self.tick + TICKS - 2) + 1)
    }

    /// Whether `tick`, which is still to come, comes before the next one at `other`.
    #[inline(always)]
    pub(super) fn is_sooner(&self, tick: Tick, other: Place) -> bool {
        other == NO_TIMER || tick.0 - (self.tick + 1) < u64::from(other).wrapping_sub(self.tick + 1) % TICKS
    }

    /// Adds a timer for a slot, at a tick that is still to come.
    #[inline(always)]
    pub(super) fn insert(&mut self, tick: Tick, slot: u32) {
        if tick.0 < self.soonest {
            self.soonest = tick.0;
        }
        self.insert_at(tick.place(), slot);
    }

    #[inline(always)]
    fn insert_at(&mut self, place: Place, slot: u32) {
        self.timers += 1;
        let head = &mut self.heads[usize::from(place) % TICKS as usize];
        if let Some(chunk) = self.chunks.as_mut_slice().get_mut(head.chunk as usize)
            && let Some(timer) = chunk.timers.get_mut(head.length as usize)
        {
            *timer = slot;
            head.length += 1;
            return;
        }
        self.insert_chunk(place, slot);
    }

    #[inline(never)]
    fn insert_chunk(&mut self, place: Place, slot: u32) {
        let head = &mut self.heads[usize::from(place)];
        let mut chunk = Chunk { timers: [0; TIMERS_PER_CHUNK], next: head.chunk };
        chunk.timers[0] = slot;
        head.length = 1;
        if self.free == NO_CHUNK {
            head.chunk = self.used;
            self.used += 1;
            if head.chunk as usize == self.chunks.as_slice().len() {
                self.chunks.grow();
            }
            self.chunks.as_mut_slice()[head.chunk as usize] = chunk;
        } else {
            head.chunk = self.free;
            let reused = &mut self.chunks.as_mut_slice()[self.free as usize];
            self.free = reused.next;
            *reused = chunk;
        }
    }

    /// The next place that has come up by `clock` (ns), the places before it being empty; None when all have.
    #[inline]
    pub(super) fn next_due(&mut self, clock: u64) -> Option<Place> {
        let now = clock >> self.tick_bits;
        if now > self.tick + TICKS {
            // A whole turn and more has passed: each place comes up once.
            self.tick = now - TICKS;
        }
        while self.tick < now {
            let place = (self.tick + 1) % TICKS;
            if self.heads[place as usize].chunk != NO_CHUNK {
                return Some(place as Place);
            }
            self.tick += 1;
        }
        None
    }

    /// Asks for the timers that come up next: they were written long ago.
    #[inline]
    pub(super) fn ask_for_next(&self) {
        let chunks = self.chunks.as_slice();
        for tick in self.tick + 1..=self.tick + ASKED_AHEAD {
            let head = self.heads[(tick % TICKS) as usize];
            if let Some(chunk) = chunks.get(head.chunk as usize) {
                let address = std::ptr::from_ref(chunk).addr();
                prefetch_to_second_cache(address);
                prefetch_to_second_cache(address + CACHE_LINE);
            }
        }
    }

    /// The place that comes up first of those that have timers.
    pub(super) fn soonest(&mut self) -> Option<Place> {
        if self.timers == 0 {
            return None;
        }
        let from = self.soonest.max(self.tick + 1);
        let found =
            (from..=self.tick + TICKS).find(|tick| self.heads[(tick % TICKS) as usize].chunk != NO_CHUNK)?;
        self.soonest = found;
        Some((found % TICKS) as Place)
    }

    /// Takes timers from a place, as many as `taken` holds; none when the place has none left.
    #[inline]
    pub(super) fn take(&mut self, place: Place, taken: &mut Taken) {
        let mut head = self.heads[usize::from(place)];
        self.take_from(&mut head, taken);
        self.heads[usize::from(place)] = head;
    }

    #[inline]
    fn take_from(&mut self, head: &mut Head, taken: &mut Taken) {
        taken.length = 0;
        while let Some(chunk) = self.chunks.as_mut_slice().get_mut(head.chunk as usize)
            && taken.length + TIMERS_PER_CHUNK <= MOST_TAKEN
        {
            taken.timers[taken.length..taken.length + TIMERS_PER_CHUNK].copy_from_slice(&chunk.timers);
            taken.length += head.length as usize;
            let emptied = head.chunk;
            *head = Head::full(chunk.next);
            chunk.next = self.free;
            self.free = emptied;
        }
        self.timers -= taken.length;
    }

    /// Takes one timer from a place.
    pub(super) fn take_one(&mut self, place: Place) -> Option<u32> {
        let head = &mut self.heads[usize::from(place)];
        let chunk = self.chunks.as_mut_slice().get_mut(head.chunk as usize)?;
        head.length -= 1;
        let slot = chunk.timers[head.length as usize];
        if head.length == 0 {
            let emptied = head.chunk;
            *head = Head::full(chunk.next);
            chunk.next = self.free;
            self.free = emptied;
        }
        self.timers -= 1;
        Some(slot)
    }

    /// Timers that stand on the wheel.
    #[cfg(test)]
    pub(super) fn timers(&self) -> usize {
        self.timers
    }

    /// Whether timers that no longer count may outnumber those that do.
    #[inline]
    pub(super) fn wants_cleaning(&self, live: usize) -> bool {
        self.timers > timers_cleaned(live)
    }

    /// Drops the timers that `keep` does not keep of those of a place that it is given, as many at once as [`Taken`] holds.
    #[cold]
    pub(super) fn clean(&mut self, mut keep: impl FnMut(Place, &mut Taken)) {
        let mut taken = Taken::default();
        for place in 0..TICKS as Place {
            // The chunks of this place are set aside, then read one by one and given back.
            let mut aside = std::mem::replace(&mut self.heads[usize::from(place)], EMPTY);
            while aside.chunk != NO_CHUNK {
                self.take_from(&mut aside, &mut taken);
                keep(place, &mut taken);
                for &slot in taken.timers() {
                    self.insert_at(place, slot);
                }
            }
        }
    }

    /// Drops all timers; the wheel stands at the tick of `clock` (ns).
    pub(super) fn restart(&mut self, clock: u64) {
        self.heads.fill(EMPTY);
        self.used = 0;
        self.free = NO_CHUNK;
        self.timers = 0;
        self.tick = clock >> self.tick_bits;
        self.soonest = self.tick;
    }

    /// The chunks, which are used from the first on.
    pub(super) fn pages(&self) -> Pages {
        self.chunks.pages()
    }

    /// Octets of chunks that were ever used.
    pub(super) fn octets_used(&self) -> usize {
        self.used as usize * size_of::<Chunk>()
    }

    /// Octets of memory in use.
    pub(super) fn octets(&self) -> usize {
        size_of_val(&*self.heads) + self.octets_used()
    }
}

/// With more timers than this, those that no longer count may outnumber those of the `live` Flows.
fn timers_cleaned(live: usize) -> usize {
    2 * live + 65_536
}

/// Timers taken from the wheel.
pub(super) struct Taken {
    timers: [u32; MOST_TAKEN],
    length: usize,
}

impl Default for Taken {
    fn default() -> Taken {
        Taken { timers: [0; MOST_TAKEN], length: 0 }
    }
}

impl Taken {
    #[inline]
    pub(super) fn timers(&self) -> &[u32] {
        &self.timers[..self.length]
    }

    /// Keeps those that `counts` says yes of.
    pub(super) fn retain(&mut self, mut counts: impl FnMut(u32) -> bool) {
        let mut kept = 0;
        for at in 0..self.length {
            let slot = self.timers[at];
            self.timers[kept] = slot;
            kept += usize::from(counts(slot));
        }
        self.length = kept;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn wheel(longest_nanos: u64) -> Wheel {
        Wheel::new(longest_nanos, 1).unwrap()
    }

    fn due(wheel: &mut Wheel, clock: u64) -> Vec<u32> {
        let mut slots = Vec::new();
        let mut taken = Taken::default();
        while let Some(place) = wheel.next_due(clock) {
            wheel.take(place, &mut taken);
            slots.extend(taken.timers());
        }
        slots
    }

    #[test]
    fn a_timer_comes_up_after_its_deadline_and_within_a_tick_or_two() {
        let mut wheel = wheel(15 * S);
        let tick = 1 << wheel.tick_bits;
        assert!(tick <= 8_000_000, "{tick}");
        wheel.restart(1000 * S);
        wheel.insert(wheel.tick(1015 * S), 7);
        assert!(due(&mut wheel, 1015 * S - 1).is_empty());
        assert_eq!(due(&mut wheel, 1015 * S + 2 * tick), [7]);
    }

    #[test]
    fn a_jump_over_several_turns_brings_up_every_timer_once() {
        let mut wheel = wheel(15 * S);
        for slot in 0..1000 {
            wheel.insert(wheel.tick(u64::from(slot) * S / 70), slot);
        }
        let mut slots = due(&mut wheel, 1_000_000 * S);
        slots.sort_unstable();
        assert_eq!(slots, (0..1000).collect::<Vec<_>>());
        assert_eq!(wheel.timers, 0);
    }

    #[test]
    fn cleaning_keeps_what_counts_and_gives_the_chunks_back() {
        let mut wheel = wheel(15 * S);
        for slot in 0..10_000 {
            wheel.insert(wheel.tick(u64::from(slot % 100) * S / 10), slot);
        }
        let chunks = wheel.used;
        wheel.clean(|_, taken| taken.retain(|slot| slot % 3 == 0));
        assert_eq!(wheel.timers, 3334);
        let mut slots = due(&mut wheel, 1_000_000 * S);
        slots.sort_unstable();
        assert_eq!(slots, (0..10_000).step_by(3).collect::<Vec<_>>());
        assert!(wheel.used <= chunks + 1, "{} {chunks}", wheel.used);
    }

    #[test]
    fn taking_one_by_one_takes_all() {
        let mut wheel = wheel(S);
        for slot in 0..100 {
            wheel.insert(wheel.tick(S / 1000), slot);
        }
        let place = wheel.soonest().unwrap();
        let mut slots: Vec<u32> = std::iter::from_fn(|| wheel.take_one(place)).collect();
        slots.sort_unstable();
        assert_eq!(slots, (0..100).collect::<Vec<_>>());
        assert_eq!(wheel.soonest(), None);
    }

    #[test]
    fn more_timers_than_were_foreseen_find_room() {
        let mut wheel = wheel(15 * S);
        let foreseen = wheel.chunks.as_slice().len();
        let timers = (foreseen * TIMERS_PER_CHUNK * 3) as u32;
        for slot in 0..timers {
            wheel.insert(wheel.tick(u64::from(slot % 1000) * S / 100), slot);
        }
        assert!(wheel.used as usize > 2 * foreseen);
        let mut slots = due(&mut wheel, 1_000_000 * S);
        slots.sort_unstable();
        assert!(slots.iter().copied().eq(0..timers));
    }
}
