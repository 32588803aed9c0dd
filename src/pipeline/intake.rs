//! The front of the pipeline: frames in, decoded, on one clock, hashed; batches of packets out, dealt out to the tables.
//!
//! Capture files and a single capture thread are one intake, several capture threads are one each
//! (`several.rs` says what they know of each other).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::meter::Inline;
use super::shards::Lane;
use super::{BATCH, BatchEnd, Moment};
use crate::capture::live::IN_FLIGHT;
use crate::capture::{CaptureDrops, Frame};
use crate::decode::{self, Fragment, FragmentTable};
use crate::export::MeteringStatistics;
use crate::flow::observation::DEALT;
use crate::flow::{ClockStep, KeyHasher, ObservationClock, Observations};
use crate::gauges::IntakeGauges;
use crate::stats::{DestinationReport, FrameCounts, RecordCounts};
use crate::time::Timestamp;

/// What a thread that reads hands its frames to.
pub struct Intake {
    pub(super) decoder: Decoder,
    /// Packets as they are read.
    pub(super) read: Observations,
    /// So many of them go on together: to the only table, or to be dealt out.
    pub(super) most_read: usize,
    pub(super) stage: Stage,
    /// What stands at the end of its last batch.
    pub(super) last: BatchEnd,
    /// How often time has jumped back for all intakes.
    pub(super) eras: Arc<AtomicU64>,
    /// The era that this one has come to.
    pub(super) era: u64,
    /// The newest era that it found opened by another, and when its first look began that began after that.
    pub(super) ahead: Option<(u64, Option<Instant>)>,
    /// Packets that were dropped before they could be read, as far as told.
    pub(super) dropped: u64,
    pub(super) gauges: Arc<IntakeGauges>,
}

/// Decoding, and all state that must see every packet in order.
#[derive(Clone)]
pub(super) struct Decoder {
    pub counts: FrameCounts,
    /// Those of all intakes: two fragments of a datagram may come in by two interfaces. Fragments alone take the lock.
    pub fragments: Arc<Mutex<FragmentTable>>,
    pub clock: ObservationClock,
    pub hasher: KeyHasher,
}

/// What an intake stops at.
enum Filled {
    /// There are no more frames.
    Ended,
    /// The batch is full.
    Batch,
    /// Time has jumped back from `before` with a packet that is put into the batch and not kept there.
    Jumped { before: Timestamp },
}

impl Decoder {
    /// Takes frames until the batch has as many packets as it may have, or it stops at something else.
    #[inline(always)]
    fn fill<'a>(
        &mut self,
        batch: &mut Observations,
        most: usize,
        frames: &mut impl ExactSizeIterator<Item = Frame<'a>>,
    ) -> Filled {
        let mut room = batch.room(most, &self.hasher);
        let (free, left, mut wire_octets) = (room.len(), frames.len(), 0);
        // Each frame is decoded where its packet stays, at least where there is one table.
        let filled = 'places: loop {
            let Some(mut place) = room.next() else { break Filled::Batch };
            loop {
                let Some(frame) = frames.next() else { break 'places Filled::Ended };
                wire_octets += u64::from(frame.wire_length);
                let fragment = match decode::decode_into(&frame, || place.again()) {
                    Ok(fragment) => fragment,
                    Err(reason) => {
                        self.counts.ignore(reason, frame.timestamp, frame.wire_length);
                        continue;
                    }
                };
                match self.clock.observe(frame.timestamp) {
                    ClockStep::At(clock) => place.set_clock(clock),
                    ClockStep::Jumped { before, .. } => break 'places Filled::Jumped { before },
                }
                if fragment != Fragment::Whole {
                    place.again().resolve(|packet| first_fragments(&self.fragments).resolve(packet));
                }
                break;
            }
        };
        let kept = match filled {
            Filled::Batch => free,
            // The place that is not filled has been taken out of the room.
            _ => free - room.len() - 1,
        };
        batch.keep(kept);
        self.counts.frames += (left - frames.len()) as u64;
        self.counts.wire_octets += wire_octets;
        filled
    }
}

fn first_fragments(fragments: &Mutex<FragmentTable>) -> MutexGuard<'_, FragmentTable> {
    // Nothing in there panics, and if it did: the table is sound after every step.
    fragments.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where batches go.
pub(super) enum Stage {
    Inline(Box<Inline>),
    Sharded(Sharded),
}

pub(super) struct Sharded {
    lanes: Vec<Lane>,
    /// What waits for each of several tables, with room for what is dealt out next; nothing with one, which takes what was
    /// read as it is.
    dealt: Vec<Observations>,
    /// Batches sent since every shard last heard the clock.
    since_clock: usize,
}

impl Sharded {
    pub fn new(lanes: Vec<Lane>) -> Sharded {
        let several = lanes.iter().filter(|_| lanes.len() > 1);
        let dealt = several.map(|_| Observations::with_capacity(BATCH)).collect();
        Sharded { lanes, dealt, since_clock: 0 }
    }

    /// Hands on what was read, or deals it out; batches that have no room for as much again are sent. `now`: the clock
    /// as it stands with the last packet.
    pub fn send(&mut self, read: &mut Observations, now: Moment, metering: &MeteringStatistics) {
        if let [lane] = &mut *self.lanes {
            let has_time = lane.is_caught_up();
            lane.send(read, now, BatchEnd::More, metering);
            *read = lane.empty();
            if has_time && lane.hashes {
                // The shard keeps up: it hashes the next batch, and what is read comes that much faster.
                read.leave_unhashed();
            }
            return;
        }
        read.deal(&mut self.dealt);
        for (lane, dealt) in self.lanes.iter_mut().zip(&mut self.dealt) {
            if dealt.len() + DEALT > BATCH {
                lane.send(dealt, now, BatchEnd::More, metering);
                *dealt = lane.empty();
                self.since_clock += 1;
            }
        }
        if self.since_clock >= 4 * self.lanes.len() {
            // A shard whose Flows are quiet must still hear that time goes on.
            self.flush(read, now, BatchEnd::More, metering);
        }
    }

    /// Hands all that waits to the tables. All of them have it, and the time with it, before any is waited for: one that is
    /// behind does not keep the others from going on.
    pub fn flush(
        &mut self,
        read: &mut Observations,
        now: Moment,
        end: BatchEnd,
        metering: &MeteringStatistics,
    ) {
        let waiting = match &mut *self.dealt {
            [] => std::slice::from_mut(read),
            dealt => {
                read.deal(dealt);
                dealt
            }
        };
        for (lane, waiting) in self.lanes.iter_mut().zip(&mut *waiting) {
            lane.send(waiting, now, end, metering);
        }
        for (lane, waiting) in self.lanes.iter_mut().zip(waiting) {
            *waiting = lane.empty();
        }
        self.since_clock = 0;
    }
}

impl Intake {
    /// Takes frames, in the order they were captured.
    #[inline]
    pub fn frames<'a>(&mut self, frames: impl ExactSizeIterator<Item = Frame<'a>>) {
        self.take(frames);
        self.gauges.set(&self.decoder.counts);
    }

    /// Takes one frame. It shows in the gauges only after a read that found no more, or when the drops are told.
    #[inline]
    pub fn frame(&mut self, frame: &Frame<'_>) {
        self.take(std::iter::once(*frame));
    }

    // Out of line: the loop has all registers to itself.
    #[inline(never)]
    fn take<'a>(&mut self, frames: impl ExactSizeIterator<Item = Frame<'a>>) {
        let mut frames = frames;
        loop {
            match self.decoder.fill(&mut self.read, self.most_read, &mut frames) {
                Filled::Ended => return,
                Filled::Batch => self.send(),
                Filled::Jumped { before } => self.jump(before),
            }
        }
    }

    /// Time has jumped back. The packet that it jumped with is the first of what comes then.
    #[cold]
    #[inline(never)]
    fn jump(&mut self, before: Timestamp) {
        let mut packet = self.read.unkept();
        let next = self.era + 1;
        let era = match self.eras.compare_exchange(self.era, next, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => next,
            Err(opened) => opened,
        };
        self.enter(era, before);
        first_fragments(&self.decoder.fragments).resolve(&mut packet);
        let hash = self.decoder.hasher.hash(&packet);
        self.read.push(&packet, self.decoder.clock.now(), hash);
    }

    /// Into a new era: all Flows end as of `before`, the clock in the old one, and no first fragment is remembered.
    fn enter(&mut self, era: u64, before: Timestamp) {
        first_fragments(&self.decoder.fragments).clear();
        // One whose clock has not started has begun none.
        let end = if before > Timestamp::EPOCH { BatchEnd::Drain } else { BatchEnd::More };
        self.flush(before, end);
        self.era = era;
    }

    /// The era that another intake has opened, if it did so so long before a look that began at `looked` and found no more
    /// that no packet from before is on its way.
    fn left_behind_by(&mut self, looked: Instant) -> Option<u64> {
        let opened = self.eras.load(Ordering::Acquire);
        if opened == self.era {
            return None;
        }
        match &mut self.ahead {
            Some((era, first_look)) if *era == opened => {
                let since = *first_look.get_or_insert(looked);
                (looked.duration_since(since) >= IN_FLIGHT).then_some(opened)
            }
            // It may have been opened after the look.
            ahead => {
                *ahead = Some((opened, None));
                None
            }
        }
    }

    /// Hands on what was read.
    #[inline(never)]
    fn send(&mut self) {
        let now = Moment { era: self.era, clock: self.clock() };
        let metering = self.decoder.counts.metering;
        match &mut self.stage {
            Stage::Inline(inline) => inline.take(&mut self.read, now.clock, BatchEnd::More, &metering),
            Stage::Sharded(sharded) => sharded.send(&mut self.read, now, &metering),
        }
    }

    /// Hands all that waits to the tables, and the time with it.
    fn flush(&mut self, clock: Timestamp, end: BatchEnd) {
        let metering = self.decoder.counts.metering;
        match &mut self.stage {
            Stage::Inline(inline) => inline.take(&mut self.read, clock, end, &metering),
            Stage::Sharded(sharded) => {
                sharded.flush(&mut self.read, Moment { era: self.era, clock }, end, &metering);
            }
        }
    }

    /// Hands on all that waits and lets every table and exporter know the time: after a read that began at `looked` and found
    /// no more. The observation clock goes on to `clock` if that is given.
    pub fn quiet(&mut self, clock: Option<Timestamp>, looked: Instant) {
        if let Some(era) = self.left_behind_by(looked) {
            // What it says of its ring in that era it says after its next look.
            self.enter(era, self.clock());
            self.decoder.clock.restart();
        } else {
            if let Some(clock) = clock {
                self.decoder.clock.advance(clock);
            }
            self.flush(self.clock(), BatchEnd::Dry);
        }
        self.gauges.set(&self.decoder.counts);
    }

    /// The observation clock.
    pub fn clock(&self) -> Timestamp {
        self.decoder.clock.now()
    }

    /// What became of the frames so far.
    pub fn counts(&self) -> &FrameCounts {
        &self.decoder.counts
    }

    /// Tells what was dropped so far before it could be read, so that the collectors hear of it (RFC 7011 §4.2): counted as
    /// ignored.
    pub fn dropped(&mut self, drops: CaptureDrops) {
        let counts = &mut self.decoder.counts;
        self.gauges.set_capture(drops);
        self.gauges.set(counts);
        let dropped = drops.dropped_by_kernel + drops.dropped_by_interface;
        let metering = &mut counts.metering;
        if dropped > self.dropped {
            metering.ignored_packets += dropped - self.dropped;
            self.dropped = dropped;
            let now = Timestamp::now();
            metering.first_ignored.get_or_insert(now);
            metering.last_ignored = Some(now);
        }
    }

    /// Hands on all that waits and hangs up; gives what it counted, and what was metered and exported on its thread.
    pub(super) fn end(mut self) -> (FrameCounts, RecordCounts, Vec<DestinationReport>) {
        let clock = self.clock();
        self.flush(clock, self.last);
        let counts = self.decoder.counts;
        let (records, destinations) = match self.stage {
            Stage::Inline(inline) => inline.finish(clock, &counts.metering),
            Stage::Sharded(_) => Default::default(),
        };
        (counts, records, destinations)
    }
}
