//! The footer: round trips, and what damaged bytes get.

use proptest::prelude::*;

use super::*;

fn footer() -> Footer {
    let epochs = [(0, 0), (3, 120)].map(|(epoch, start_offset)| EpochStart { epoch, start_offset });
    let mut footer = Footer {
        base_offset: 100,
        last_offset: 199,
        uploader_epoch: 4,
        max_timestamp: 1_700_000_000_000,
        compaction: Compaction::NONE,
        block_bytes: 1 << 20,
        leader_epochs: LeaderEpochs::new(epochs.to_vec()).unwrap(),
        sections: [Section::default(); 6],
        object_bytes: 0,
    };
    footer.lay_out([(3 << 20, 1), (800, 2), (1200, 3), (0, 0), (50, 5), (12, 6)]);
    footer
}

#[test]
fn a_footer_reads_as_it_was_written() {
    let footer = footer();
    let bytes = footer.encode();
    assert_eq!(bytes.len(), footer.encoded_length());
    let trailer = Trailer::parse(&bytes, footer.object_bytes).unwrap();
    assert_eq!(trailer.footer_length(), bytes.len());
    assert_eq!(Footer::parse(&bytes, footer.object_bytes).unwrap(), footer);
    // More of the object than the footer may come before it.
    let tail = [vec![7; 99], bytes].concat();
    assert_eq!(Footer::parse(&tail, footer.object_bytes).unwrap(), footer);
    assert_eq!(footer.name().leader_epoch, 3);
    assert_eq!(footer.name().log_bytes, 3 << 20);
    assert_eq!(
        footer.section(SectionKind::TimeIndex),
        Section { offset: (3 << 20) + 800, length: 1200, crc: 3 }
    );
}

/// What it was compacted by tells of another format, and what was written before is read as it was.
#[test]
fn a_compacted_object_says_in_which_epoch_it_was() {
    let before = Footer { compaction: Compaction { to: 500, epoch: None }, ..footer() };
    let now = compacted(Compaction { to: 500, epoch: Some(3) });
    assert_eq!(now.encoded_length(), before.encoded_length() + 4);
    for (footer, version) in [(before, 1), (now, 2)] {
        let bytes = footer.encode();
        assert_eq!(bytes[bytes.len() - TRAILER_LENGTH + 4..][..2], [0, version]);
        assert_eq!(Footer::parse(&bytes, footer.object_bytes).unwrap(), footer);
    }
}

fn compacted(compaction: Compaction) -> Footer {
    let mut footer = Footer { compaction, ..footer() };
    footer.lay_out(footer.sections.map(|section| (section.length, section.crc)));
    footer
}

#[test]
fn every_flipped_bit_and_every_cut_is_noticed() {
    for footer in [footer(), compacted(Compaction { to: 500, epoch: Some(3) })] {
        every_flip_and_cut_of(&footer);
    }
}

fn every_flip_and_cut_of(footer: &Footer) {
    let bytes = footer.encode();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(Footer::parse(&flipped, footer.object_bytes).is_err(), "bit {bit}");
    }
    for cut in 0..bytes.len() {
        assert!(Footer::parse(&bytes[..cut], footer.object_bytes).is_err(), "cut at {cut}");
        assert!(Footer::parse(&bytes[cut + 1..], footer.object_bytes).is_err(), "without the first {cut}");
    }
    let error = Footer::parse(&bytes, footer.object_bytes + 1).unwrap_err();
    assert_eq!(error, FooterError::WrongLength { said: footer.object_bytes, have: footer.object_bytes + 1 });
}

#[test]
fn a_contradiction_under_a_right_checksum_is_refused() {
    let changes: [fn(&mut Footer); 9] = [
        |footer| footer.sections[2].offset += 1,
        |footer| footer.sections[5].length = 16,
        |footer| footer.block_bytes = 0,
        |footer| footer.last_offset = 99,
        |footer| footer.uploader_epoch = -1,
        |footer| *footer = compacted(Compaction { to: 500, epoch: Some(-1) }),
        |footer| *footer = compacted(Compaction { to: 0, epoch: Some(3) }),
        |footer| footer.leader_epochs = LeaderEpochs::default(),
        |footer| footer.sections[0].length = u64::MAX,
    ];
    for change in changes {
        let mut footer = footer();
        change(&mut footer);
        let error = Footer::parse(&footer.encode(), footer.object_bytes).unwrap_err();
        assert!(matches!(error, FooterError::Inconsistent(_)), "{error}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_parser_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..400),
        size in any::<u64>(),
        version in 1u16..=2,
    ) {
        Footer::parse(&bytes, size).ok();
        // The same with a trailer that lets the body be read.
        let length = bytes.len() as u32;
        bytes.extend(length.to_be_bytes());
        bytes.extend(version.to_be_bytes());
        bytes.extend([0; 2]);
        bytes.extend(size.to_be_bytes());
        let crc = crc32c::crc32c(&bytes);
        bytes.extend(crc.to_be_bytes());
        bytes.extend(MAGIC);
        Footer::parse(&bytes, size).ok();
    }
}
