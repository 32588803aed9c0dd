//! A table at work: batches of packets in, slots of Flow Records out, and the counts of what it reported.

use std::sync::Arc;
use std::time::Instant;

use super::exporters::{Destination, EXPORTER_TICK, ExporterClock};
use super::{BatchEnd, PipelineError, Timestamp};
use crate::export::MeteringStatistics;
use crate::flow::record::{RecordSink, WriteRecord};
use crate::flow::{FlowRecord, FlowTable, Observations, TableOptions, UpcomingMemory};
use crate::gauges::ShardGauges;
use crate::stats::{DestinationReport, RecordCounts};

/// Records in a batch that stays on its thread, and in the first cache.
const INLINE_RECORD_BATCH: usize = 64;

/// Records that wait to be a batch: slots that the table writes in place, filled from the front.
pub(super) struct RecordSlots {
    records: Box<[FlowRecord]>,
    filled: usize,
}

impl RecordSlots {
    /// `length` empty slots, at least one.
    pub fn new(length: usize) -> RecordSlots {
        RecordSlots { records: vec![FlowRecord::default(); length].into(), filled: 0 }
    }

    pub fn filled(&self) -> &[FlowRecord] {
        &self.records[..self.filled]
    }

    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }

    pub fn clear(&mut self) {
        self.filled = 0;
    }
}

/// Takes a table's records into slots, counts them, and hands the slots to `full` whenever there is no room left.
struct Reported<'a, F> {
    slots: &'a mut RecordSlots,
    counts: &'a mut RecordCounts,
    full: F,
}

impl<F: FnMut(&mut RecordSlots)> RecordSink for Reported<'_, F> {
    #[inline(always)]
    fn put(&mut self, flow: impl WriteRecord) {
        let record = &mut self.slots.records[self.slots.filled];
        flow.write(record);
        self.counts.add(record);
        self.slots.filled += 1;
        if self.slots.filled == self.slots.records.len() {
            (self.full)(self.slots);
            self.slots.filled = 0;
        }
    }
}

/// A table and the counts of what it reported.
pub(super) struct Meter {
    table: FlowTable,
    pub counts: RecordCounts,
    pub gauges: Arc<ShardGauges>,
}

impl Meter {
    pub fn new(options: &TableOptions, gauges: &Arc<ShardGauges>) -> Result<Meter, PipelineError> {
        gauges.set_capacity(options.max_flows);
        let table = FlowTable::new(options)?;
        Ok(Meter { table, counts: RecordCounts::default(), gauges: Arc::clone(gauges) })
    }

    /// The memory that the table will use next.
    pub fn upcoming(&self) -> UpcomingMemory {
        self.table.upcoming()
    }

    /// Meters a batch, and ends the Flows that are due by `clock`, or all of them.
    #[inline]
    pub fn take(
        &mut self,
        observations: &Observations,
        clock: Timestamp,
        drain: bool,
        slots: &mut RecordSlots,
        full: impl FnMut(&mut RecordSlots),
    ) {
        let mut sink = Reported { slots, counts: &mut self.counts, full };
        self.table.observe(observations, &mut sink);
        if drain {
            self.table.drain(clock, &mut sink);
        } else {
            self.table.expire(clock, &mut sink);
        }
        self.counts.evicted = self.table.evicted();
        self.gauges.set(&self.counts, self.table.live());
    }
}

/// A table and its exporters on one thread: the calling one, or that of the one shard.
pub(super) struct Inline {
    pub meter: Meter,
    records: RecordSlots,
    destinations: Vec<Destination>,
    last_tick: Instant,
    live: bool,
}

impl Inline {
    pub fn new(meter: Meter, destinations: Vec<Destination>, live: bool) -> Inline {
        let records = RecordSlots::new(INLINE_RECORD_BATCH);
        Inline { meter, records, destinations, last_tick: Instant::now(), live }
    }

    pub fn take(
        &mut self,
        observations: &mut Observations,
        clock: Timestamp,
        end: BatchEnd,
        metering: &MeteringStatistics,
    ) {
        let (records, destinations) = (&mut self.records, &mut self.destinations);
        let mut hand_over = |records: &mut RecordSlots| {
            for destination in destinations.iter_mut() {
                destination.exporter.export(records.filled());
            }
            records.clear();
        };
        self.meter.take(observations, clock, end == BatchEnd::Drain, records, &mut hand_over);
        observations.clear();
        let is_last_for_now = !self.live && end == BatchEnd::Dry;
        if (self.live || is_last_for_now) && !records.is_empty() {
            hand_over(records);
        }
        let wall_tick = self.last_tick.elapsed() >= EXPORTER_TICK;
        for destination in &mut self.destinations {
            if wall_tick || destination.clock == ExporterClock::Packet {
                destination.tick(clock, metering);
            }
            if is_last_for_now {
                destination.send_waiting(clock);
            }
        }
        if wall_tick {
            self.last_tick = Instant::now();
        }
    }

    pub fn finish(
        mut self,
        clock: Timestamp,
        metering: &MeteringStatistics,
    ) -> (RecordCounts, Vec<DestinationReport>) {
        let reports = self
            .destinations
            .drain(..)
            .map(|mut destination| {
                destination.exporter.export(self.records.filled());
                destination.finish(clock, metering)
            })
            .collect();
        (self.meter.counts, reports)
    }
}
