//! The far end of the pipeline: batches of Flow Records in, to exporters on threads of their own.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::meter::RecordSlots;
use super::{Moment, PipelineError, spawn};
use crate::export::{Exporter, MeteringStatistics};
use crate::gauges::{ExporterGauges, Gauges, Shown};
use crate::stats::DestinationReport;
use crate::time::Timestamp;

/// Records in a batch that crosses to an exporter's thread.
const RECORD_BATCH: usize = 256;
/// Record batches that may wait for an exporter.
const WAITING_RECORD_BATCHES: usize = 64;
/// How often an exporter looks at the clock while no records come.
pub(super) const EXPORTER_TICK: Duration = Duration::from_millis(200);

/// One destination and its exporter.
pub struct Destination {
    /// The destination as it was given.
    pub name: String,
    /// What exports to it.
    pub exporter: Box<dyn Exporter>,
    /// The time the exporter goes by.
    pub clock: ExporterClock,
}

/// The time that an exporter is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExporterClock {
    /// The system's: messages that cross a network (RFC 7011 §3.1, Export Time).
    Wall,
    /// The packets' own, so that the same capture file gives the same octets, with one table; with more, or by a pipe that falls
    /// silent in between, the same records.
    Packet,
}

impl ExporterClock {
    fn now(self, clock: Timestamp) -> Timestamp {
        match self {
            ExporterClock::Wall => Timestamp::now(),
            ExporterClock::Packet => clock,
        }
    }
}

impl Destination {
    pub(super) fn tick(&mut self, clock: Timestamp, metering: &MeteringStatistics) {
        self.exporter.tick(self.clock.now(clock), metering);
    }

    pub(super) fn send_waiting(&mut self, clock: Timestamp) {
        self.exporter.send_waiting(self.clock.now(clock));
    }

    pub(super) fn finish(mut self, clock: Timestamp, metering: &MeteringStatistics) -> DestinationReport {
        self.exporter.finish(self.clock.now(clock), metering);
        DestinationReport {
            destination: self.name,
            delivery: self.exporter.delivery(),
            failure: self.exporter.failure().map(str::to_string),
        }
    }
}

/// The destinations, each showing itself in its gauges.
pub(super) fn shown(destinations: Vec<Destination>, gauges: &Gauges) -> Vec<Destination> {
    let show = |(one, (_, gauges)): (Destination, &(String, Arc<ExporterGauges>))| Destination {
        exporter: Box::new(Shown::new(one.exporter, gauges)),
        ..one
    };
    destinations.into_iter().zip(&gauges.exporters).map(show).collect()
}

/// Records on their way to the exporters.
struct RecordBatch {
    records: RecordSlots,
    now: Moment,
    metering: MeteringStatistics,
    /// There may be no more records for long.
    is_last_for_now: bool,
}

/// Exporters, each on a thread of its own.
#[derive(Default)]
pub(super) struct ExporterThreads(Vec<(String, JoinHandle<DestinationReport>)>);

/// The way from a table to them.
#[derive(Clone)]
pub(super) struct RecordLane {
    to: Vec<(Sender<Arc<RecordBatch>>, Arc<ExporterGauges>)>,
    buffers: Receiver<RecordSlots>,
}

impl ExporterThreads {
    pub fn start(
        destinations: Vec<Destination>,
        gauges: &Gauges,
    ) -> Result<(ExporterThreads, RecordLane), PipelineError> {
        let mut threads = Vec::new();
        let mut to_exporters = Vec::new();
        let (give_back, buffers) = bounded(2 * WAITING_RECORD_BATCHES);
        for (destination, (_, shown)) in destinations.into_iter().zip(&gauges.exporters) {
            let (to, from) = bounded(WAITING_RECORD_BATCHES);
            let give_back = give_back.clone();
            let name = destination.name.clone();
            let thread =
                spawn(format!("exporter {name}"), move || run_exporter(destination, &from, &give_back))?;
            to_exporters.push((to, Arc::clone(shown)));
            threads.push((name, thread));
        }
        Ok((ExporterThreads(threads), RecordLane { to: to_exporters, buffers }))
    }

    /// Whether a thread has ended before its time.
    pub fn is_broken(&self) -> bool {
        self.0.iter().any(|(_, thread)| thread.is_finished())
    }

    /// Waits for the threads, to which no lane may lead any more.
    pub fn finish(self) -> Result<Vec<DestinationReport>, PipelineError> {
        let report = |(name, thread): (String, JoinHandle<DestinationReport>)| {
            thread.join().map_err(|_| PipelineError::Died(format!("exporter {name}")))
        };
        self.0.into_iter().map(report).collect()
    }
}

impl RecordLane {
    /// Slots for what is sent here.
    pub fn slots() -> RecordSlots {
        RecordSlots::new(RECORD_BATCH)
    }

    /// Sends the records on; empty slots take their place.
    pub fn send(&self, records: &mut RecordSlots, now: Moment, metering: &MeteringStatistics) {
        self.send_batch(records, now, metering, false);
    }

    /// [`RecordLane::send`]s the last records for now, not to be kept back by the exporters.
    pub fn send_last(&self, records: &mut RecordSlots, now: Moment, metering: &MeteringStatistics) {
        self.send_batch(records, now, metering, true);
    }

    fn send_batch(
        &self,
        records: &mut RecordSlots,
        now: Moment,
        metering: &MeteringStatistics,
        is_last_for_now: bool,
    ) {
        let empty = self.buffers.try_recv().unwrap_or_else(|_| RecordLane::slots());
        let records = std::mem::replace(records, empty);
        let batch = Arc::new(RecordBatch { records, now, metering: *metering, is_last_for_now });
        for (exporter, gauges) in &self.to {
            let _ = exporter.send(Arc::clone(&batch));
            gauges.channel.set(exporter.len(), exporter.capacity());
        }
    }
}

fn run_exporter(
    mut destination: Destination,
    from: &Receiver<Arc<RecordBatch>>,
    give_back: &Sender<RecordSlots>,
) -> DestinationReport {
    let mut now = Moment::default();
    let mut metering = MeteringStatistics::default();
    let mut last_tick = Instant::now();
    loop {
        let mut is_last_for_now = false;
        match from.recv_timeout(EXPORTER_TICK) {
            Ok(batch) => {
                destination.exporter.export(batch.records.filled());
                // Of several tables one may still be in an era that is over for the others.
                now = now.max(batch.now);
                // And one may have heard less than another, but what is told does not go back.
                if batch.metering.ignored_packets >= metering.ignored_packets {
                    metering = batch.metering;
                }
                is_last_for_now = batch.is_last_for_now;
                if let Ok(RecordBatch { mut records, .. }) = Arc::try_unwrap(batch) {
                    records.clear();
                    let _ = give_back.try_send(records);
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return destination.finish(now.clock, &metering),
        }
        match destination.clock {
            // Every batch brings the time, and nothing else does: runs with one table repeat.
            ExporterClock::Packet => destination.tick(now.clock, &metering),
            ExporterClock::Wall if last_tick.elapsed() >= EXPORTER_TICK => {
                destination.tick(now.clock, &metering);
                last_tick = Instant::now();
            }
            ExporterClock::Wall => {}
        }
        if is_last_for_now {
            destination.send_waiting(now.clock);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::testing::HandsTo;
    use std::sync::Mutex;

    #[test]
    fn an_exporter_goes_by_the_newest_era_and_the_highest_counts_of_all_tables() {
        let told: Arc<Mutex<Vec<(u64, u64)>>> = Arc::default();
        let tells = Arc::clone(&told);
        let exporter = Box::new(HandsTo {
            take: |_: &[_]| {},
            tick: move |now: Timestamp, metering: &MeteringStatistics| {
                tells.lock().unwrap().push((now.seconds(), metering.ignored_packets));
            },
            is_light: false,
        });
        let destination = Destination { name: "memory".to_string(), exporter, clock: ExporterClock::Packet };
        let (to, from) = bounded(WAITING_RECORD_BATCHES);
        let (give_back, _buffers) = bounded(1);
        // Of two tables: the first is in the new era before the second, which drains last.
        for (era, seconds, ignored_packets) in
            [(0, 500, 3), (0, 499, 2), (1, 7, 4), (0, 501, 3), (1, 9, 6), (1, 8, 5)]
        {
            let now = Moment { era, clock: Timestamp::EPOCH.plus(Duration::from_secs(seconds)) };
            let metering = MeteringStatistics { ignored_packets, ..MeteringStatistics::default() };
            let records = RecordLane::slots();
            to.send(Arc::new(RecordBatch { records, now, metering, is_last_for_now: false })).unwrap();
        }
        drop(to);
        run_exporter(destination, &from, &give_back);
        assert_eq!(*told.lock().unwrap(), [(500, 3), (500, 3), (7, 4), (7, 4), (9, 6), (9, 6)]);
    }
}
