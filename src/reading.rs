//! Capture files in, their frames into a [`Pipeline`] until none is left or there is a reason to end: for files what
//! [`crate::sensor`] is for interfaces.

use std::time::{Duration, Instant};

use crate::capture::file::CaptureFiles;
use crate::pipeline::Pipeline;

/// Frames between two looks at what need not be looked at for each run of them.
const LOOK_EVERY: u64 = 8192;
/// What came by a pipe is not kept back longer than this, where the next frames always come before it falls silent.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Reads until the files end, `has_to_end` says so, or a thread of the pipeline has died, which [`Pipeline::finish`] then
/// tells: what is left could no longer be exported. `look` is called every some thousand frames.
pub fn read_all(
    files: &mut CaptureFiles,
    pipeline: &mut Pipeline,
    has_to_end: impl Fn() -> bool,
    mut look: impl FnMut(&CaptureFiles, &Pipeline),
) {
    let (mut look_at, mut let_out) = (LOOK_EVERY, Instant::now());
    loop {
        while files.is_dry() {
            // A capture that comes by a pipe as it is made: what is known is not kept back until the next packets come.
            pipeline.quiet(None);
            let_out = Instant::now();
            if has_to_end() || pipeline.is_broken() {
                return;
            }
        }
        let Some(frames) = files.next_run() else { return };
        pipeline.frames(frames);
        if has_to_end() {
            return;
        }
        if files.may_wait() && let_out.elapsed() >= LONGEST_WAIT {
            pipeline.quiet(None);
            let_out = Instant::now();
        }
        let frames = pipeline.counts().frames;
        if frames >= look_at {
            look_at = frames + LOOK_EVERY;
            if pipeline.is_broken() {
                return;
            }
            look(files, pipeline);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::file::FileOptions;
    use crate::capture::write::FrameFile;
    use crate::capture::{Frame, LinkType};
    use crate::export::testing::HandsTo;
    use crate::flow::{FlowRecord, TableOptions, Timeouts};
    use crate::pipeline::{Destination, ExporterClock, Layout, PipelineError, PipelineOptions};
    use crate::time::Timestamp;
    use std::path::Path;
    use std::process::Command;
    use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
    use std::thread;

    /// How long the writer at the other end of the pipe waits to be told that nobody reads any more.
    const LIMIT: Duration = Duration::from_secs(30);

    /// Of UDP over IPv4 over Ethernet.
    const DATAGRAM: [u8; 42] = {
        let mut data = [0; 42];
        (data[12], data[14], data[17], data[22], data[23]) = (0x08, 0x45, 28, 64, 17);
        data
    };

    fn frame(nanos: u64, data: &[u8]) -> Frame<'_> {
        Frame {
            timestamp: Timestamp::from_nanos(nanos),
            wire_length: data.len() as u32,
            link_type: LinkType::ETHERNET,
            interface: 0,
            data,
        }
    }

    /// Writes frames without end, or two, the second of which makes a record of the first, and no more. Gives whether it was
    /// told to end before its patience ended.
    fn write(pipe: &Path, falls_silent: bool, told: &Receiver<()>) -> bool {
        let file = FrameFile::create(pipe, &[("a", LinkType::ETHERNET)], 256).unwrap();
        let mut log = file.log("a");
        let (began, mut nanos) = (Instant::now(), 0);
        loop {
            for _ in 0..if falls_silent { 2 } else { 1000 } {
                nanos += 1000;
                log.push(&frame(nanos, &DATAGRAM));
            }
            log.flush();
            let patience = if falls_silent { LIMIT } else { Duration::ZERO };
            match told.recv_timeout(patience) {
                Err(RecvTimeoutError::Timeout) if began.elapsed() < LIMIT => {}
                heard => return heard.is_ok(),
            }
        }
    }

    #[test]
    fn what_comes_by_a_pipe_that_never_falls_silent_is_not_kept_back_until_a_batch_is_full() {
        const MOST: usize = 1000; // half a batch
        let folder = tempfile::tempdir().unwrap();
        for layout in [Layout::Inline, Layout::Shards(1), Layout::Shards(2)] {
            let pipe = folder.path().join(layout.describe());
            assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
            let (tell, told) = channel();
            let writer = thread::spawn({
                let pipe = pipe.clone();
                move || {
                    let file = FrameFile::create(&pipe, &[("a", LinkType::ETHERNET)], 256).unwrap();
                    let mut log = file.log("a");
                    (1..MOST).find(|number| {
                        log.push(&frame(*number as u64, &DATAGRAM));
                        log.flush();
                        told.recv_timeout(Duration::from_millis(20)).is_ok()
                    })
                }
            });
            let timeouts = Timeouts { idle: Duration::ZERO, ..Timeouts::default() };
            let table = TableOptions { timeouts, max_flows: 1000 };
            let destination = Destination {
                name: "none".to_string(),
                exporter: Box::new(HandsTo {
                    take: move |records: &[FlowRecord]| {
                        if !records.is_empty() {
                            let _ = tell.send(());
                        }
                    },
                    tick: |_, _: &_| {},
                    is_light: false,
                }),
                clock: ExporterClock::Packet,
            };
            let options = PipelineOptions { layout, table, live: false };
            let mut pipeline = Pipeline::start(options, vec![destination], None).unwrap();
            let mut files = CaptureFiles::open(&[pipe], &FileOptions::default()).unwrap();
            read_all(&mut files, &mut pipeline, || false, |_, _| {});
            assert!(writer.join().unwrap().is_some(), "{layout:?}: no record of {MOST} packets");
            pipeline.finish().unwrap();
        }
    }

    #[test]
    fn when_a_thread_dies_nothing_more_is_read() {
        let folder = tempfile::tempdir().unwrap();
        for (case, (layout, is_light, falls_silent)) in [
            (Layout::Shards(1), false, false),
            (Layout::Shards(1), true, false),
            (Layout::Shards(2), false, false),
            (Layout::Shards(1), false, true),
        ]
        .into_iter()
        .enumerate()
        {
            let pipe = folder.path().join(case.to_string());
            assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
            let (tell, told) = channel();
            let writer = thread::spawn({
                let pipe = pipe.clone();
                move || write(&pipe, falls_silent, &told)
            });
            // A record of each packet.
            let timeouts = Timeouts { idle: Duration::ZERO, ..Timeouts::default() };
            let table = TableOptions { timeouts, max_flows: 1000 };
            let destination = Destination {
                name: "none".to_string(),
                exporter: Box::new(HandsTo {
                    take: |records: &[FlowRecord]| {
                        assert!(records.is_empty(), "the test wants this thread to die");
                    },
                    tick: |_, _: &_| {},
                    is_light,
                }),
                clock: ExporterClock::Packet,
            };
            let options = PipelineOptions { layout, table, live: false };
            let mut pipeline = Pipeline::start(options, vec![destination], None).unwrap();
            let mut files = CaptureFiles::open(&[pipe], &FileOptions::default()).unwrap();
            read_all(&mut files, &mut pipeline, || false, |_, _| {});
            let _ = tell.send(());
            // A writer that waits for room in the pipe is let go.
            drop(files);
            assert!(writer.join().unwrap(), "{layout:?}, light {is_light}: all was read");
            let ended = pipeline.finish();
            assert!(matches!(ended, Err(PipelineError::Died(_))), "{layout:?}, light {is_light}");
        }
    }
}
