//! Asking the processor for a file's octets before the kernel copies them.
//!
//! In: a file that is read from its beginning to its end. Out: where in memory the page cache holds what the next read
//! will give, so that its cache lines can be asked for while the frames of the last read are decoded; the copy then waits
//! for memory no more, which is most of what it costs.
//!
//! The mapping lends its addresses and is never read: the octets of a file that is cut off, replaced or overwritten
//! meanwhile are what `read` says they are, and a page that is no longer there is a line asked for in vain, no SIGBUS.
//! Reading from the mapping itself saves the copy too, some 3 to 5 ns more a frame of 80 octets, and was rejected for these two.
//! A page of 4 KiB is mapped and unmapped for some 200 to 300 ns, one of a large folio for 150, a large page of 512 of them for
//! some µs; the copy of one that no cache holds takes 400 ns longer than of one that the second does.
//! That is a fifth of the time of who reads a file of small pages, so others who have nothing else to do take it over
//! ([`UpcomingWindows`]): a window ahead, and the window behind. Who reads does itself what nobody has begun, as where there
//! are no others, and goes without where somebody is at it. What the page cache does not hold is left to who reads: a disk
//! that is asked for two stretches at once seeks. A thread for that alone was rejected: on two cores it gets in the way
//! of the two that are there, and where the table is what takes the time there is nothing to win.
//! Where something of this is not to be had, the file is read as it would be without.
//!
//! What has been read, from whatever source, is asked for a second time shortly before it is walked over ([`bring_near`]).

// Elsewhere nothing is mapped.
#![cfg_attr(not(all(target_os = "linux", target_arch = "x86_64")), allow(dead_code))]

use std::fs::File;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam_channel::{Receiver, Sender, bounded};
use memmap2::Mmap;

use crate::prefetch::{CACHE_LINE, prefetch, prefetch_to_second_cache};

/// Octets of an open file mapped at once: few mappings for a long file, since each that ends makes every thread forget where
/// its memory is; and no more of it counted as this process's memory, twice where the next one is made ready meanwhile.
const WINDOW: usize = 8 << 20;
/// Octets that a window's pages are asked for in, and a multiple of which it begins at: a page of the largest kind that
/// a page cache is made of is then one page here too, and many small ones cost less at once than a few at a time.
const PIECE: usize = 2 << 20;
/// Octets around a page that the kernel maps with it, as far as they are in the page cache, from a multiple of that on: its
/// `fault_around_bytes`. Where they are set to fewer, as for debugging, the others are asked for in vain.
const AROUND: usize = 64 << 10;
/// Pieces of a window.
const PIECES: usize = WINDOW / PIECE;
/// Windows that may wait to be made ready or to be unmapped: those behind also count as this process's memory.
const MOST_WAITING: usize = 4;
/// Files looked ahead in at once: both directions of a line or two, each in a file of its own. What is asked for must
/// stay in the second cache, of 1 or 2 MiB, until it is read, and it is a buffer a file.
const MOST_FILES: usize = 4;
/// Device and inode of a file.
pub(super) type Identity = (u64, u64);

/// The files that are being read, of all that are open: the last [`MOST_FILES`] that were read from. With more of them
/// taking turns none is looked ahead in, rather than each mapped anew at every turn.
#[derive(Clone, Default)]
pub(super) struct Lookahead(Arc<Mutex<Files>>);

#[derive(Default)]
struct Files {
    /// The one that was read from last first.
    recent: Vec<Reading>,
    /// The way of windows to [`UpcomingWindows`], if there are any.
    helpers: Option<Sender<Arc<Window>>>,
}

struct Reading {
    file: Identity,
    window: Option<Arc<Window>>,
    /// The one behind it, where somebody else makes it ready.
    next: Option<Arc<Window>>,
    /// Some of it had to be read from where it is stored.
    is_cold: Arc<AtomicBool>,
    given_up: bool,
}

/// A stretch of a file, mapped.
struct Window {
    from: u64,
    map: Mmap,
    pieces: [Piece; PIECES],
    /// The file's.
    is_cold: Arc<AtomicBool>,
}

/// How far the pages of a piece have come: one of the following.
#[derive(Default)]
struct Piece(AtomicU8);

const UNTOUCHED: u8 = 0;
/// Somebody is mapping them.
const IN_WORK: u8 = 1;
const READY: u8 = 2;
/// The file ends in it.
const REFUSED: u8 = 3;

/// The octets that are read next.
enum Stretch {
    At(usize),
    /// Somebody is mapping them: those behind may be ready.
    InWork,
}

impl Lookahead {
    /// The address of the octet of `file` at `position`, where the `length` from there on are mapped; none if that cannot
    /// be done, as for the last octets of a file, or is being done, or if it is not one of the few that were read from last.
    pub fn address(&self, identity: Identity, file: &File, position: u64, length: usize) -> Option<usize> {
        let mut files = self.files();
        let Files { recent, helpers } = &mut *files;
        let Some(place) = recent.iter().position(|reading| reading.file == identity) else {
            recent.truncate(MOST_FILES - 1);
            recent.insert(0, Reading::of(identity));
            return None;
        };
        recent[..=place].rotate_right(1);
        let reading = &mut recent[0];
        if reading.given_up {
            return None;
        }
        match reading.stretch(file, position, length, helpers.as_ref()) {
            Some(Stretch::At(address)) => Some(address),
            Some(Stretch::InWork) => None,
            None => {
                (reading.window, reading.next, reading.given_up) = (None, None, true);
                None
            }
        }
    }

    /// The file is not being read for now.
    pub fn close(&self, identity: Identity) {
        self.files().recent.retain(|reading| reading.file != identity);
    }

    /// What others can do of the work from now on.
    pub fn upcoming(&self) -> UpcomingWindows {
        let (to, waiting) = bounded(MOST_WAITING);
        self.files().helpers = Some(to);
        UpcomingWindows { waiting, current: None }
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reading {
    fn of(file: Identity) -> Reading {
        Reading { file, window: None, next: None, is_cold: Arc::default(), given_up: false }
    }

    /// The `length` octets at `position`, in the window, the next one or another; none if they cannot be mapped.
    fn stretch(
        &mut self,
        file: &File,
        position: u64,
        length: usize,
        helpers: Option<&Sender<Arc<Window>>>,
    ) -> Option<Stretch> {
        let hand_over = |window| {
            if let Some(helpers) = helpers {
                // What there is no room for is left to this thread.
                let _ = helpers.try_send(window);
            }
        };
        let is_inside = |window: &mut Arc<Window>| window.inside(position, length).is_some();
        let window = match self.window.take_if(is_inside) {
            Some(window) => window,
            None => {
                // Unmapped by whoever lets go of it last.
                if let Some(last) = self.window.take() {
                    hand_over(last);
                }
                let window = match self.next.take_if(is_inside) {
                    Some(next) => next,
                    None => {
                        let from = position - position % PIECE as u64;
                        let window = Arc::new(Window::map(file, from, &self.is_cold)?);
                        hand_over(Arc::clone(&window));
                        window
                    }
                };
                let end = window.from + WINDOW as u64;
                if helpers.is_some() && file.metadata().is_ok_and(|metadata| metadata.len() > end) {
                    self.next = Window::map(file, end, &self.is_cold).map(Arc::new);
                    if let Some(next) = &self.next {
                        hand_over(Arc::clone(next));
                    }
                }
                window
            }
        };
        let stretch = window.stretch(position, length);
        self.window = Some(window);
        stretch
    }
}

impl Window {
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    fn map(file: &File, from: u64, is_cold: &Arc<AtomicBool>) -> Option<Window> {
        // SAFETY: whoever changes the file changes the mapped octets, which nothing here ever reads.
        let map = unsafe { memmap2::MmapOptions::new().offset(from).len(WINDOW).map(file) }.ok()?;
        Some(Window { from, map, pieces: Default::default(), is_cold: Arc::clone(is_cold) })
    }

    #[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
    fn map(_: &File, _: u64, _: &Arc<AtomicBool>) -> Option<Window> {
        None
    }

    /// Where the `length` octets of the file at `position` lie in it; none if not all do.
    fn inside(&self, position: u64, length: usize) -> Option<Range<usize>> {
        let at = usize::try_from(position.checked_sub(self.from)?).ok()?;
        let end = at.checked_add(length).filter(|&end| end <= WINDOW)?;
        Some(at..end)
    }

    /// The `length` octets at `position`, whose pages are mapped if nobody has begun to: a page that is not in the table of this
    /// process is not asked for either. None if they are not in it, or the file ends before.
    fn stretch(&self, position: u64, length: usize) -> Option<Stretch> {
        let Range { start, end } = self.inside(position, length)?;
        for piece in start / PIECE..end.div_ceil(PIECE) {
            match self.make_ready(piece) {
                READY => {}
                IN_WORK => return Some(Stretch::InWork),
                _ => {
                    populate(&self.map, start, end)?;
                    break;
                }
            }
        }
        Some(Stretch::At(self.map.as_ptr().addr() + start))
    }

    /// Maps the pages of a piece, if nobody has begun to; how far they are then.
    fn make_ready(&self, piece: usize) -> u8 {
        let Piece(state) = &self.pieces[piece];
        // Nothing is read by way of what is mapped, so nothing has to be seen before it.
        match state.compare_exchange(UNTOUCHED, IN_WORK, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => {
                let done = populate(&self.map, piece * PIECE, (piece + 1) * PIECE);
                let done = if done.is_some() { READY } else { REFUSED };
                state.store(done, Ordering::Relaxed);
                done
            }
            Err(state) => state,
        }
    }

    /// Maps the next piece for who reads, unless the file has to be read for that; whether there was one.
    fn help(&self) -> bool {
        if self.is_cold.load(Ordering::Relaxed) {
            return false;
        }
        let Some(piece) = self.untouched() else { return false };
        let (from, before) = (piece * PIECE, faults());
        let is_in_memory = is_in_memory(&self.map, from, from + PIECE);
        if is_in_memory {
            self.make_ready(piece);
        }
        // Of a file that belongs to another user the kernel says that all is.
        if !is_in_memory || faults().from_storage != before.from_storage {
            self.is_cold.store(true, Ordering::Relaxed);
        }
        true
    }

    /// The first of its pieces that nobody has begun to map.
    fn untouched(&self) -> Option<usize> {
        self.pieces.iter().position(|Piece(state)| state.load(Ordering::Relaxed) == UNTOUCHED)
    }
}

/// Windows of the files that are being read, to be made ready before they are read and to be unmapped behind: for threads that
/// have nothing else to do.
#[derive(Clone)]
pub struct UpcomingWindows {
    waiting: Receiver<Arc<Window>>,
    /// The one in work.
    current: Option<Arc<Window>>,
}

impl UpcomingWindows {
    /// Makes a piece of them ready or unmaps one, which takes some tenths of a millisecond where the file is in memory; false
    /// if nothing is to be done for now.
    pub fn make_ready(&mut self) -> bool {
        let Some(window) = self.current.take().or_else(|| self.waiting.try_recv().ok()) else { return false };
        // One that is read no more ends here.
        if Arc::strong_count(&window) > 1 && window.help() {
            self.current = Some(window);
        }
        true
    }

    /// Whether one is in work.
    #[cfg(test)]
    pub fn is_begun(&self) -> bool {
        self.current.is_some()
    }
}

/// Maps the pages of a mapping's octets from `from` to before `end`, which are some; refused where the file ends before.
///
/// Asked for all of them, the kernel goes over each page once more after it has mapped it, to see that it has: a third of
/// the time. So one page in [`AROUND`] is asked for, but where that brought the next one too: it is a large page, or all
/// are there already, and each call would cost more than the rest at once.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn populate(map: &Mmap, from: usize, end: usize) -> Option<()> {
    let ask = |from, length| map.advise_range(memmap2::Advice::PopulateRead, from, length).ok();
    let next = |at: usize| (at + 1).next_multiple_of(AROUND);
    ask(from, 1)?;
    let mut at = next(from);
    if at < end {
        let before = faults();
        ask(at, 1)?;
        at = next(at);
        if at < end && faults().from_memory == before.from_memory {
            return ask(at, end - at);
        }
    }
    while at < end {
        ask(at, 1)?;
        at = next(at);
    }
    // Of what is asked for in one page's stead, the last may lie behind the end of the file.
    ask(end - 1, 1)
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn populate(_: &Mmap, _: usize, _: usize) -> Option<()> {
    None
}

/// Whether the page cache holds a mapping's octets from `from` to before `end`, as far as one page in [`AROUND`] tells; what lies
/// behind the end of the file it does not.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn is_in_memory(map: &Mmap, from: usize, end: usize) -> bool {
    (from..end).step_by(AROUND).all(|at| {
        let mut is_there = 0;
        // SAFETY: the page is one of the mapping's, and the kernel writes the one octet that one page has.
        let asked = unsafe { libc::mincore(map.as_ptr().add(at).cast_mut().cast(), 1, &raw mut is_there) };
        asked == 0 && is_there & 1 != 0
    })
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn is_in_memory(_: &Mmap, _: usize, _: usize) -> bool {
    false
}

/// How often the kernel has mapped something for this thread; numbers that stand still if it does not say, which is slower
/// and not wrong.
#[derive(Default)]
struct Faults {
    /// That was in memory.
    from_memory: i64,
    /// That it had to read for it.
    from_storage: i64,
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn faults() -> Faults {
    use nix::sys::resource::{UsageWho, getrusage};
    getrusage(UsageWho::RUSAGE_THREAD).map_or(Faults::default(), |usage| Faults {
        from_memory: usage.minor_page_faults(),
        from_storage: usage.major_page_faults(),
    })
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn faults() -> Faults {
    Faults::default()
}

/// Asks for the cache lines that the `length` octets from `address` on lie in, wherever that is; those of the first
/// [`USUAL`] in any case.
#[inline(always)]
pub(super) fn ask_for(address: usize, length: usize) {
    prefetch_to_second_cache(address);
    prefetch_to_second_cache(address.wrapping_add(CACHE_LINE));
    if length > USUAL {
        ask_for_more(address, length);
    }
}

/// Two lines are asked for without a look at the length: of a frame cut to its headers there is no more.
const USUAL: usize = 2 * CACHE_LINE;

#[inline(never)]
fn ask_for_more(address: usize, length: usize) {
    for from in (USUAL..length).step_by(CACHE_LINE) {
        prefetch_to_second_cache(address.wrapping_add(from));
    }
}

/// How far ahead of the record that is walked over [`bring_near`] asks, in octets: some ten records cut to their headers.
const NEAR: usize = 1024;

/// Asks for what lies a little behind the beginning of `unread` to be brought to the nearest cache: what was read lies
/// in the one behind it, and where a record begins is not known before the header of the one before has been waited for.
#[inline(always)]
pub(super) fn bring_near(unread: &[u8]) {
    prefetch(unread, NEAR);
    prefetch(unread, NEAR + CACHE_LINE);
}

#[cfg(all(test, target_os = "linux", target_arch = "x86_64"))]
pub(crate) mod tests {
    use std::io::Write;
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::needs::skip_even_in_ci;

    use crate::flow::memory::tests::resident;

    const FILE: Identity = (0, 1);
    const PAGE: usize = 4096;

    /// Whether a window can be mapped and filled here: not before Linux 5.14, nor on a file system that maps nothing.
    pub(crate) fn possible() -> bool {
        let file = tempfile::tempfile().expect("a temporary file");
        file.set_len(WINDOW as u64).expect("a file may have holes");
        // SAFETY: nothing reads the mapping.
        let map = unsafe { Mmap::map(&file) };
        let possible = map.is_ok_and(|map| map.advise(memmap2::Advice::PopulateRead).is_ok());
        if !possible {
            skip_even_in_ci("no temporary file's pages can be mapped at once");
        }
        possible
    }

    #[test]
    fn the_address_is_that_of_the_octet_in_whichever_window_it_lies() {
        if !possible() {
            return;
        }
        let file = tempfile::tempfile().expect("a temporary file");
        let length = 2 * WINDOW as u64 + 2_000_000;
        file.set_len(length).expect("a file may have holes");
        let positions = (24..length - 65_536).step_by(300_001);
        for position in positions.clone() {
            file.write_all_at(&position.to_ne_bytes(), position).expect("room for it");
        }
        let lookahead = Lookahead::default();
        assert_eq!(lookahead.address(FILE, &file, 0, 65_536), None);
        for position in positions {
            let address = lookahead.address(FILE, &file, position, 65_536).expect("mapped");
            let files = lookahead.files();
            let Window { from, map, pieces, .. } = &**files.recent[0].window.as_ref().expect("mapped");
            let at = (position - from) as usize;
            assert_eq!(address, map.as_ptr().addr() + at);
            assert_eq!(map[at..at + 8], position.to_ne_bytes(), "at {position}");
            let last = (at + 65_535) / PIECE;
            let is_whole = from + ((last + 1) * PIECE) as u64 <= length;
            assert_eq!(pieces[last].0.load(Ordering::Relaxed), if is_whole { READY } else { REFUSED });
        }
    }

    #[test]
    fn the_pages_of_a_piece_are_in_the_table_of_this_process() {
        if !possible() {
            return;
        }
        let mut file = tempfile::tempfile().expect("a temporary file");
        // As tcpdump writes, so that the page cache holds it in small pages.
        (0..2 * PIECE / PAGE).for_each(|_| file.write_all(&[1; PAGE]).expect("room for it"));
        // SAFETY: nothing reads the mapping.
        let map = unsafe { Mmap::map(&file) }.expect("it was possible");
        map.advise_range(memmap2::Advice::PopulateRead, PIECE, 1).expect("it was possible");
        // What a kernel is set to that nobody has set otherwise.
        if resident(map.as_ptr().addr() + PIECE, 16) < 16 {
            return skip_even_in_ci("this kernel maps fewer pages around the one that is asked for");
        }
        let lookahead = Lookahead::default();
        assert_eq!(lookahead.address(FILE, &file, 0, 65_536), None);
        let position = 3 * PAGE;
        let address = lookahead.address(FILE, &file, position as u64, 65_536).expect("mapped");
        assert_eq!(resident(address, (PIECE - position) / PAGE), (PIECE - position) / PAGE);
    }

    /// A file in memory of so many windows and one octet.
    fn long(windows: usize) -> File {
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(&vec![1; windows * WINDOW + 1]).expect("room for it");
        file
    }

    fn window(lookahead: &Lookahead) -> Arc<Window> {
        Arc::clone(lookahead.files().recent[0].window.as_ref().expect("mapped"))
    }

    #[test]
    fn others_make_the_next_window_ready_and_unmap_the_last() {
        if !possible() {
            return;
        }
        let (file, lookahead) = (long(2), Lookahead::default());
        let mut upcoming = lookahead.upcoming();
        assert!(!upcoming.make_ready(), "nothing is read");
        assert_eq!(lookahead.address(FILE, &file, 0, 65_536), None);
        assert!(lookahead.address(FILE, &file, 0, 65_536).is_some());
        let first = Arc::downgrade(&window(&lookahead));
        // All pieces but the one that was read from, and a look at each window.
        assert_eq!((0..100).filter(|_| upcoming.make_ready()).count(), 2 * PIECES - 1 + 2);
        let next = Arc::clone(lookahead.files().recent[0].next.as_ref().expect("the file goes on"));
        assert_eq!(next.from, WINDOW as u64);
        assert!((0..PIECES).all(|piece| resident(next.map.as_ptr().addr() + piece * PIECE, 1) == 1));
        drop(next);
        // Read on there.
        let address = lookahead.address(FILE, &file, WINDOW as u64, 65_536);
        assert_eq!(address, Some(window(&lookahead).map.as_ptr().addr()));
        assert_eq!(first.strong_count(), 1);
        assert!(upcoming.make_ready());
        assert_eq!(first.strong_count(), 0);
        // What is behind them is one octet.
        assert!(lookahead.files().recent[0].next.is_some());
        while upcoming.make_ready() {}
        assert_eq!(lookahead.address(FILE, &file, 2 * WINDOW as u64, 65_536), None);
        assert!(lookahead.files().recent[0].given_up);
    }

    #[test]
    fn what_others_do_not_begin_is_done_and_no_more_is_left_to_them_than_so_many_windows() {
        if !possible() {
            return;
        }
        let (file, lookahead) = (long(3 * MOST_WAITING), Lookahead::default());
        let mut upcoming = lookahead.upcoming();
        assert_eq!(lookahead.address(FILE, &file, 0, 65_536), None);
        let windows: Vec<_> = (0..3 * MOST_WAITING * PIECES)
            .map(|piece| {
                assert!(lookahead.address(FILE, &file, (piece * PIECE) as u64, 65_536).is_some());
                Arc::downgrade(&window(&lookahead))
            })
            .step_by(PIECES)
            .collect();
        let are_mapped = || windows.iter().filter(|window| window.strong_count() > 0).count();
        assert!(are_mapped() <= MOST_WAITING + 1, "{}", are_mapped());
        while upcoming.make_ready() {}
        assert_eq!(are_mapped(), 1);
        // There are no others any more.
        drop(upcoming);
        assert!(lookahead.address(FILE, &file, 0, 65_536).is_some());
        assert_eq!(are_mapped(), 0);
    }

    #[test]
    fn others_leave_a_file_alone_that_has_to_be_read() {
        if !possible() {
            return;
        }
        let is_cold = Arc::default();
        let warm = Window::map(&long(1), 0, &is_cold).expect("it was possible");
        assert!(warm.help());
        assert_eq!((warm.untouched(), is_cold.load(Ordering::Relaxed)), (Some(1), false));
        // Of a hole nothing is in memory.
        let file = tempfile::tempfile().expect("a temporary file");
        file.set_len(WINDOW as u64).expect("a file may have holes");
        let cold = Window::map(&file, 0, &is_cold).expect("it was possible");
        if is_in_memory(&cold.map, 0, PIECE) {
            return skip_even_in_ci("this system does not say what is in memory");
        }
        assert!(cold.help());
        assert_eq!((cold.untouched(), is_cold.load(Ordering::Relaxed)), (Some(0), true));
        assert!(!cold.help() && !warm.help(), "the whole file is");
        // Who reads does it.
        assert!(matches!(cold.stretch(0, 65_536), Some(Stretch::At(_))));
        assert_eq!(cold.untouched(), Some(1));
    }

    #[test]
    fn what_somebody_is_mapping_is_not_waited_for() {
        if !possible() {
            return;
        }
        let (file, lookahead) = (long(1), Lookahead::default());
        assert_eq!(lookahead.address(FILE, &file, 0, 65_536), None);
        assert!(lookahead.address(FILE, &file, 0, 65_536).is_some());
        window(&lookahead).pieces[1].0.store(IN_WORK, Ordering::Relaxed);
        assert_eq!(lookahead.address(FILE, &file, PIECE as u64, 65_536), None);
        assert!(lookahead.address(FILE, &file, 2 * PIECE as u64, 65_536).is_some());
    }

    #[test]
    fn only_the_files_that_were_read_last_are_mapped() {
        if !possible() {
            return;
        }
        let files: Vec<_> = (0..2 * MOST_FILES as u64)
            .map(|number| {
                let file = tempfile::tempfile().expect("a temporary file");
                file.set_len(2 * WINDOW as u64).expect("a file may have holes");
                ((0, number), file)
            })
            .collect();
        let lookahead = Lookahead::default();
        let address = |number: usize, position| {
            let (identity, file) = &files[number];
            lookahead.address(*identity, file, position, 65_536).is_some()
        };
        let mapped = || lookahead.files().recent.iter().filter(|reading| reading.window.is_some()).count();
        // More in turn than there are windows: nobody's is taken for the next.
        for position in [0, 65_536, 131_072] {
            assert!((0..=MOST_FILES).all(|number| !address(number, position)));
        }
        assert!(address(MOST_FILES, 262_144));
        assert_eq!(mapped(), 1);
        // As many in turn as there are windows: each has its own from its second turn on, and the one read no more none.
        for (position, count) in [(262_144, 0), (327_680, MOST_FILES), (393_216, MOST_FILES)] {
            assert_eq!((0..MOST_FILES).filter(|&number| address(number, position)).count(), count);
        }
        assert_eq!(mapped(), MOST_FILES);
        lookahead.close(files[0].0);
        assert_eq!(mapped(), MOST_FILES - 1);
        assert!(!address(0, 458_752) && address(0, 458_752));
    }

    #[test]
    fn a_file_that_ends_before_is_no_longer_looked_ahead_in() {
        if !possible() {
            return;
        }
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(&[1; 300_000]).expect("room for it");
        let lookahead = Lookahead::default();
        assert_eq!(lookahead.address(FILE, &file, 0, 65_536), None);
        // The rest of its piece is not there, the octets asked for are.
        assert!(lookahead.address(FILE, &file, 0, 65_536).is_some());
        file.set_len(100_000).expect("a file may be cut off");
        assert_eq!(lookahead.address(FILE, &file, 65_536, 65_536), None);
        assert!(lookahead.files().recent[0].window.is_none());
        assert_eq!(lookahead.address(FILE, &file, 0, 1), None);
        ask_for(usize::MAX - 100, 1_000);
        ask_for(0, 1_000);
    }

    #[test]
    fn what_is_longer_than_a_window_is_not_mapped() {
        let file = tempfile::tempfile().expect("a temporary file");
        file.set_len(3 * WINDOW as u64).expect("a file may have holes");
        let lookahead = Lookahead::default();
        assert_eq!(lookahead.address(FILE, &file, 0, WINDOW + 1), None);
        assert_eq!(lookahead.address(FILE, &file, 0, WINDOW + 1), None);
        assert!(lookahead.files().recent[0].given_up);
    }
}
