//! Whether every thread gets on: beats in, the threads that are stuck out.
//!
//! Live, every thread beats several times a second whether packets come or not: the intake wakes for a quiet link and
//! sends the time down to the tables, the exporters look at the clock. A beat that stands still for [`STUCK_AFTER`] is a
//! thread that waits for something that does not come: a file system that hangs, a pipe that nobody reads, a collector that takes
//! nothing, a defect.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use log::{error, info};
use serde::Serialize;

use crate::gauges::Gauges;

/// How long a thread may stand still. With a look a second it is noticed within 8 s.
pub const STUCK_AFTER: Duration = Duration::from_secs(7);

/// What is known of the threads.
#[derive(Debug)]
pub struct Health {
    threads: Mutex<Vec<Watched>>,
}

#[derive(Debug)]
struct Watched {
    name: String,
    beat: u64,
    since: Instant,
    stuck: bool,
}

/// The state of a thread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ThreadState {
    /// Its name.
    pub name: String,
    /// Whether it stands still.
    pub stuck: bool,
    /// For how many seconds it has not beaten.
    pub silent_seconds: u64,
}

impl Health {
    /// All threads well, as of now.
    pub fn new(gauges: &Gauges) -> Health {
        Health::at(gauges.beats(), Instant::now())
    }

    fn at(beats: Vec<(String, u64)>, since: Instant) -> Health {
        let watched = |(name, beat)| Watched { name, beat, since, stuck: false };
        Health { threads: Mutex::new(beats.into_iter().map(watched).collect()) }
    }

    /// Looks at the beats, logs what has changed, and says whether all threads get on.
    pub fn look(&self, gauges: &Gauges) -> bool {
        self.look_at(gauges.beats(), Instant::now())
    }

    fn look_at(&self, beats: Vec<(String, u64)>, now: Instant) -> bool {
        let mut threads = self.threads.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        for (thread, (_, beat)) in threads.iter_mut().zip(beats) {
            let silent = now.saturating_duration_since(thread.since);
            if beat != thread.beat {
                (thread.beat, thread.since) = (beat, now);
                if std::mem::take(&mut thread.stuck) {
                    info!("the {} thread gets on again after {} s", thread.name, silent.as_secs());
                }
            } else if silent >= STUCK_AFTER && !thread.stuck {
                thread.stuck = true;
                error!("the {} thread is stuck: no progress for {} s", thread.name, silent.as_secs());
            }
        }
        threads.iter().all(|thread| !thread.stuck)
    }

    /// Each thread's state as of the last look.
    pub fn threads(&self) -> Vec<ThreadState> {
        let threads = self.threads.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        threads
            .iter()
            .map(|thread| ThreadState {
                name: thread.name.clone(),
                stuck: thread.stuck,
                silent_seconds: thread.since.elapsed().as_secs(),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_stands_still_is_stuck_and_well_again_when_it_beats() {
        let start = Instant::now();
        let beats = |a, b| vec![("intake".to_string(), a), ("shard 0".to_string(), b)];
        let health = Health::at(beats(0, 0), start);
        for second in 1..7 {
            assert!(health.look_at(beats(second, 0), start + Duration::from_secs(second)));
        }
        assert!(!health.look_at(beats(7, 0), start + Duration::from_secs(7)));
        let stuck: Vec<bool> = health.threads().iter().map(|thread| thread.stuck).collect();
        assert_eq!(stuck, [false, true]);
        assert!(health.look_at(beats(8, 1), start + Duration::from_secs(8)));
    }
}
