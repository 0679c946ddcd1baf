//! Round trips through every codec, and what hostile bytes get.

use super::*;

const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

#[test]
fn every_codec_gives_back_what_it_was_given() {
    let mut varied = Vec::new();
    for index in 0..100_000u32 {
        varied.extend_from_slice(&index.wrapping_mul(2_654_435_761).to_le_bytes());
    }
    for payload in [&b""[..], b"one record", &[7; 300_000], &varied] {
        for codec in CODECS {
            let compressed = compress(codec, None, payload).unwrap();
            assert_eq!(decompress(codec, &compressed, payload.len()).unwrap(), payload, "{codec:?}");
            if !payload.is_empty() {
                let error = decompress(codec, &compressed, payload.len() - 1).unwrap_err();
                assert!(matches!(error, CompressionError::TooLarge { .. }), "{codec:?}: {error}");
            }
        }
    }
}

#[test]
fn levels_reach_the_codec() {
    let text: Vec<u8> = (0..50_000u32).flat_map(|n| n.to_string().into_bytes()).collect();
    for (codec, low, high) in [(Codec::Gzip, 1, 9), (Codec::Zstd, 1, 19)] {
        let fast = compress(codec, Some(low), &text).unwrap();
        let small = compress(codec, Some(high), &text).unwrap();
        assert!(small.len() < fast.len(), "{codec:?}: {} is not below {}", small.len(), fast.len());
    }
}

#[test]
fn raw_snappy_is_read_too() {
    let compressed = snap::raw::Encoder::new().compress_vec(b"librdkafka may send one raw block").unwrap();
    assert_eq!(decompress(Codec::Snappy, &compressed, 100).unwrap(), b"librdkafka may send one raw block");
}

#[test]
fn a_bomb_stops_at_the_limit() {
    let zeros = vec![0u8; 16 << 20];
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let bomb = compress(codec, None, &zeros).unwrap();
        let error = decompress(codec, &bomb, 1 << 20).unwrap_err();
        let too_large = matches!(error, CompressionError::TooLarge { limit, .. } if limit == 1 << 20);
        // zstd says so before the first byte: the frame asks for a window that the limit does not allow.
        assert!(too_large || codec == Codec::Zstd, "{codec:?}: {error}");
    }
    // Five bytes that claim 4 GiB.
    assert!(decompress(Codec::Snappy, &[0xff, 0xff, 0xff, 0xff, 0x0f], usize::MAX).is_err());
}

#[test]
fn garbage_and_cut_off_streams_are_errors() {
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        assert!(
            decompress(codec, b"\x13\x37 this was never compressed \xff\xff", 1 << 20).is_err(),
            "{codec:?}"
        );
        let whole = compress(codec, None, &[9; 100_000]).unwrap();
        let cut = &whole[..whole.len() / 2];
        assert!(!matches!(decompress(codec, cut, 1 << 20), Ok(out) if out.len() == 100_000), "{codec:?}");
    }
}
