//! A megabyte that claims or holds gigabytes is refused at the limit, and costs no more memory than that.

#![allow(clippy::unwrap_used, reason = "what is run here is a test, its helpers too")]

use std::fs;

use firn_records::batch::Codec;
use firn_records::compression::{CompressionError, compress, decompress};

const BOMB_BYTES: usize = 1 << 20;
const LIMIT: usize = 8 << 20;
/// The limit twice over, for the output is copied as it grows, and as much again for the codecs and the allocator.
const RESIDENT_MAX_KIB: u64 = 4 * (LIMIT as u64 >> 10);

#[test]
fn bombs_are_refused_within_bounded_memory() {
    let bombs = [
        ("gzip, about 1 GiB", Codec::Gzip, gzip_bomb()),
        ("snappy, 22 MiB", Codec::Snappy, snappy_bomb()),
        ("lz4, 255 MiB", Codec::Lz4, lz4_bomb()),
        ("zstd, 32 GiB", Codec::Zstd, zstd_bomb(&[0x00, 0x38], BOMB_BYTES)),
        ("zstd, 32 GiB and a window of 128 MiB", Codec::Zstd, zstd_bomb(&[0x00, 0x88], BOMB_BYTES)),
        ("zstd, a few bytes that say 1 TiB", Codec::Zstd, zstd_bomb(&ONE_TIB_SEGMENT, 100)),
        ("gzip in raw zeros", Codec::Gzip, vec![0; BOMB_BYTES]),
    ];
    let before = resident_peak_kib();
    for (name, codec, bomb) in &bombs {
        let error = decompress(*codec, bomb, LIMIT).unwrap_err();
        let by_limit = matches!(error, CompressionError::TooLarge { limit: LIMIT, .. });
        assert!(by_limit || name.ends_with("zeros") || name.ends_with("TiB"), "{name}: {error}");
    }
    let grown = resident_peak_kib() - before;
    assert!(grown <= RESIDENT_MAX_KIB, "{grown} KiB more were resident than before");
}

/// Members of 16 MiB of zeros, one after another.
fn gzip_bomb() -> Vec<u8> {
    repeated(&compress(Codec::Gzip, Some(9), &vec![0; 16 << 20]).unwrap())
}

/// A xerial stream of blocks of zeros.
fn snappy_bomb() -> Vec<u8> {
    let one = compress(Codec::Snappy, None, &vec![0; 32 << 10]).unwrap();
    let (header, block) = one.split_at(16);
    [header, &repeated(block)].concat()
}

/// A frame of blocks of 4 MiB, each of which repeats one byte.
fn lz4_bomb() -> Vec<u8> {
    let one = {
        // One literal, then a match at distance 1 whose length runs on: each further byte is 255 more of it.
        let mut block = vec![0x1f, 0, 1, 0];
        block.resize(4 + (4 << 20) / 255 - 1, 255);
        // The format ends a block with literals.
        block.extend_from_slice(&[0, 0x50, 1, 2, 3, 4, 5]);
        [&(block.len() as u32).to_le_bytes()[..], &block].concat()
    };
    [&[0x04, 0x22, 0x4d, 0x18, 0x60, 0x70, 0x73][..], &repeated(&one)].concat()
}

/// A frame descriptor of one segment that claims 1 TiB.
const ONE_TIB_SEGMENT: [u8; 9] = [0xe0, 0, 0, 0, 0, 0, 1, 0, 0];

/// Blocks of 128 KiB, each four bytes long and one byte over and over.
fn zstd_bomb(descriptor: &[u8], bytes: usize) -> Vec<u8> {
    let mut bomb = vec![0x28, 0xb5, 0x2f, 0xfd];
    bomb.extend_from_slice(descriptor);
    let block = ((128u32 << 10) << 3 | 0b010).to_le_bytes();
    while bomb.len() < bytes {
        bomb.extend_from_slice(&[block[0], block[1], block[2], 0]);
    }
    bomb
}

fn repeated(part: &[u8]) -> Vec<u8> {
    part.repeat(BOMB_BYTES.div_ceil(part.len()))
}

fn resident_peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
