//! A progress bar for runs that take longer than a second: octets read, packets a second, flows.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Shorter runs show nothing.
const SHOW_AFTER: Duration = Duration::from_secs(1);

/// Progress on standard error.
pub struct Progress {
    wanted: bool,
    total: Option<u64>,
    began: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Progress towards `total` octets, if that is known; nothing is ever shown unless `wanted`.
    pub fn new(wanted: bool, total: Option<u64>) -> Progress {
        Progress { wanted, total, began: Instant::now(), bar: None }
    }

    /// Shows how far the run has come.
    ///
    /// `flows` counts those that have ended and those that are open.
    pub fn show(&mut self, octets: u64, packets: u64, flows: impl FnOnce() -> u64) {
        if !self.wanted {
            return;
        }
        let elapsed = self.began.elapsed();
        if elapsed < SHOW_AFTER {
            return;
        }
        let total = self.total;
        let bar = self.bar.get_or_insert_with(|| {
            let (bar, template) = match total {
                Some(total) => (
                    ProgressBar::new(total),
                    "{bar:30} {percent}% of {total_bytes}, {bytes_per_sec}, {msg}, {eta} left",
                ),
                None => (ProgressBar::new_spinner(), "{spinner} {bytes}, {bytes_per_sec}, {msg}"),
            };
            bar.with_style(
                ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
            )
            .with_elapsed(elapsed)
        });
        let rate = packets as f64 / elapsed.as_secs_f64();
        let counted = |count| crate::stats::grouped(count);
        bar.set_message(format!(
            "{} packets at {:.2} M/s, {} flows",
            counted(packets),
            rate / 1e6,
            counted(flows())
        ));
        bar.set_position(octets);
    }

    /// Takes the bar off the terminal.
    pub fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
