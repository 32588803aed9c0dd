//! Decompression: in, the octets of a gzip (RFC 1952), zstd (RFC 8878) or lz4 frame file; out, what was compressed, on
//! the reader's own thread ([`Decompressor`]) or, a few blocks ahead of it, on another ([`Ahead`]).

use std::io::{self, BufReader, Read};
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};
use flate2::bufread::MultiGzDecoder;
use lz4_flex::frame::FrameDecoder;

use super::source::Source;

/// Octets read from a compressed file at a time.
const COMPRESSED_READ: usize = 64 * 1024;

/// A compression, told by a file's first octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    Gzip,
    Zstd,
    Lz4,
}

impl Compression {
    pub fn recognise(magic: &[u8]) -> Option<Compression> {
        match *magic {
            [0x1F, 0x8B, ..] => Some(Compression::Gzip),
            [0x28, 0xB5, 0x2F, 0xFD] => Some(Compression::Zstd),
            // A skippable frame: the parallel zstd compressor begins its files with one.
            [0x50..=0x5F, 0x2A, 0x4D, 0x18] => Some(Compression::Zstd),
            [0x04, 0x22, 0x4D, 0x18] => Some(Compression::Lz4),
            _ => None,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
            Compression::Lz4 => "lz4",
        }
    }
}

/// A source being decompressed, all its members or frames one after the other.
pub(super) enum Decompressor {
    Gzip(Box<MultiGzDecoder<BufReader<Source>>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, BufReader<Source>>>),
    Lz4(Box<FrameDecoder<Watched>>),
}

impl Decompressor {
    pub fn new(compression: Compression, source: Source) -> io::Result<Decompressor> {
        let source = BufReader::with_capacity(COMPRESSED_READ, source);
        Ok(match compression {
            Compression::Gzip => Decompressor::Gzip(Box::new(MultiGzDecoder::new(source))),
            // A frame that asks for more than 128 MiB of memory is refused, as the zstd tool does.
            Compression::Zstd => {
                Decompressor::Zstd(Box::new(zstd::stream::read::Decoder::with_buffer(source)?))
            }
            Compression::Lz4 => {
                Decompressor::Lz4(Box::new(FrameDecoder::new(Watched { source, ended: false })))
            }
        })
    }

    /// The file below.
    pub fn source_mut(&mut self) -> &mut Source {
        match self {
            Decompressor::Gzip(decoder) => decoder.get_mut().get_mut(),
            Decompressor::Zstd(decoder) => decoder.get_mut().get_mut(),
            Decompressor::Lz4(decoder) => decoder.get_mut().source.get_mut(),
        }
    }
}

impl Read for Decompressor {
    fn read(&mut self, octets: &mut [u8]) -> io::Result<usize> {
        match self {
            Decompressor::Gzip(decoder) => decoder.read(octets),
            Decompressor::Zstd(decoder) => decoder.read(octets),
            // The decoder gives 0 octets both at the end of a frame and where a frame is cut off before a block.
            Decompressor::Lz4(decoder) => loop {
                let read = decoder.read(octets)?;
                if read > 0 || octets.is_empty() {
                    return Ok(read);
                }
                if decoder.get_ref().ended {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                if decoder.get_mut().at_end()? {
                    return Ok(0);
                }
            },
        }
    }
}

/// Remembers whether more was asked for than there was.
pub(super) struct Watched {
    source: BufReader<Source>,
    ended: bool,
}

impl Watched {
    fn at_end(&mut self) -> io::Result<bool> {
        use io::BufRead;
        Ok(self.source.fill_buf()?.is_empty())
    }
}

impl Read for Watched {
    fn read(&mut self, octets: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(octets)?;
        self.ended |= read == 0 && !octets.is_empty();
        Ok(read)
    }
}

/// Octets a thread decompresses before it hands them over.
const BLOCK: usize = 256 * 1024;
/// Blocks decompressed ahead of the reader: enough that neither waits for the other over a slow stretch.
const BLOCKS: usize = 4;

/// The right to run one more thread; given back when it is dropped.
pub(super) type Permit = Arc<()>;

/// A decompressor that runs ahead on a thread of its own.
pub(super) struct Ahead {
    filled: Receiver<Block>,
    empty: Sender<Vec<u8>>,
    current: Block,
    at: usize,
    _permit: Permit,
}

#[derive(Default)]
struct Block {
    /// Initialised throughout, `length` of it decompressed.
    octets: Vec<u8>,
    length: usize,
    /// What came behind those: the end, or an error.
    end: Option<io::Result<()>>,
}

impl Ahead {
    /// Moves `decompressor` to a thread of its own; gives it back if none can be had. Of a pipe each block is handed
    /// over as soon as it holds anything, so that what has arrived is not kept waiting.
    pub fn spawn(decompressor: Decompressor, permit: Permit) -> Result<Ahead, Decompressor> {
        let (give, take) = bounded::<Decompressor>(1);
        let (fill, filled) = bounded(BLOCKS);
        let (empty, emptied) = bounded(BLOCKS + 1);
        let run = move || {
            if let Ok(decompressor) = take.recv() {
                decompress(decompressor, &emptied, &fill);
            }
        };
        // The decompressor follows over a channel: a closure that no thread would run takes what it holds with it.
        if thread::Builder::new().name("decompress".to_string()).spawn(run).is_err() {
            return Err(decompressor);
        }
        for _ in 0..BLOCKS {
            // The channel has room for all of them; if the thread were gone, reading would tell.
            let _ = empty.send(vec![0; BLOCK]);
        }
        give.send(decompressor).map_err(|unsent| unsent.into_inner())?;
        Ok(Ahead { filled, empty, current: Block::default(), at: 0, _permit: permit })
    }
}

fn decompress(mut decompressor: Decompressor, emptied: &Receiver<Vec<u8>>, fill: &Sender<Block>) {
    let whole_blocks = decompressor.source_mut().reopens();
    while let Ok(mut octets) = emptied.recv() {
        let (mut length, mut end) = (0, None);
        while length < octets.len() && end.is_none() && (whole_blocks || length == 0) {
            match decompressor.read(&mut octets[length..]) {
                Ok(0) => end = Some(Ok(())),
                Ok(read) => length += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => end = Some(Err(error)),
            }
        }
        let ended = end.is_some();
        // Whoever read from here may have closed the file: then nobody wants the rest.
        if fill.send(Block { octets, length, end }).is_err() || ended {
            return;
        }
    }
}

impl Read for Ahead {
    fn read(&mut self, octets: &mut [u8]) -> io::Result<usize> {
        loop {
            let ready = &self.current.octets[self.at..self.current.length];
            if !ready.is_empty() {
                let read = ready.len().min(octets.len());
                octets[..read].copy_from_slice(&ready[..read]);
                self.at += read;
                return Ok(read);
            }
            if let Some(end) = self.current.end.take() {
                // Said once; asked again, the stream is at its end.
                self.current.end = Some(Ok(()));
                return end.map(|()| 0);
            }
            let next = self.filled.recv().map_err(|_| io::Error::other("the decompressing thread died"))?;
            let done = std::mem::replace(&mut self.current, next);
            self.at = 0;
            if !done.octets.is_empty() {
                // A thread that has met the end takes no more blocks.
                let _ = self.empty.send(done.octets);
            }
        }
    }
}
