//! Compressed captures: whole, cut off, damaged and mutated.

use tempfile::TempDir;

use super::captures::{
    Random, gzip, lz4, mutate, pcap_of_both_lengths, pcap_of_many, pcapng_of_everything, zstd_frame,
};
use super::{open, read_files, written};
use crate::capture::file::CaptureFiles;

#[test]
fn compressed_captures_of_several_members_are_read() {
    let folder = TempDir::new().unwrap();
    for (format, (file, expected)) in
        [("pcapng", pcapng_of_everything()), ("pcap", pcap_of_both_lengths()), ("pcap", pcap_of_many())]
    {
        for (compression, compress) in
            [("gz", gzip as fn(&[u8]) -> Vec<u8>), ("zst", zstd_frame), ("lz4", lz4)]
        {
            let (first, second) = file.split_at(file.len() / 3);
            let skippable = if compression == "zst" { &b"\x50\x2A\x4D\x18\x02\0\0\0ab"[..] } else { &[] };
            let compressed = [skippable, &compress(first), &compress(second)].concat();
            let path = written(&folder, &format!("{format}.{compression}"), &compressed);
            let alone = open(std::slice::from_ref(&path));
            let without_threads = CaptureFiles { most_ahead: 0, ..alone };
            for mut files in [open(std::slice::from_ref(&path)), without_threads] {
                assert_eq!(read_files(&mut files), expected);
                assert!(files.failures().is_empty(), "{:?}", files.failures());
                assert_eq!(Some(files.octets_read()), files.octets_total());
            }
        }
    }
}

#[test]
fn a_compressed_stream_that_is_cut_off_or_damaged_gives_what_it_can_and_says_where_it_stopped() {
    let folder = TempDir::new().unwrap();
    let (file, expected) = pcap_of_many();
    for (name, compressed) in [("gzip", gzip(&file)), ("zstd", zstd_frame(&file)), ("lz4", lz4(&file))] {
        let mut damaged = compressed.clone();
        let half = damaged.len() / 2;
        damaged[half..half + 64].iter_mut().for_each(|octet| *octet ^= 0x5A);
        for octets in [&compressed[..half], &compressed[..compressed.len() - 1], &damaged] {
            let path = written(&folder, name, octets);
            let mut files = open(&[path]);
            let frames = read_files(&mut files);
            assert!(frames[..frames.len().min(100)] == expected[..frames.len().min(100)]);
            let [failure] = files.failures() else { panic!("{name}: {:?}", files.failures()) };
            assert!(failure.decompressed);
            if octets.len() < compressed.len() {
                assert_eq!(frames, expected[..frames.len()]);
                assert!(failure.to_string().contains(" of the decompressed stream: "), "{failure}");
                let told = format!("decompressing {name} failed: ");
                assert!(failure.to_string().contains(&told), "{failure}");
            }
        }
    }
}

#[test]
fn mutated_compressed_captures_neither_panic_nor_hang() {
    let folder = TempDir::new().unwrap();
    let mut random = Random(0x5EED_0003);
    let file = [pcapng_of_everything().0, pcapng_of_everything().0].concat();
    let seeds = [gzip(&file), zstd_frame(&file), lz4(&file), [lz4(&file), lz4(&file)].concat()];
    for _ in 0..600 {
        let mut octets = seeds[random.below(seeds.len())].clone();
        mutate(&mut octets, &mut random);
        let path = written(&folder, "mutated", &octets);
        let mut files = open(&[path.clone(), path]);
        read_files(&mut files);
    }
}
