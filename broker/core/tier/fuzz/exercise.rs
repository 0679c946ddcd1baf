//! What the tier promises of any object in its bucket: its footer is refused, or every number of it lies within the
//! object and writing it again gives the same bytes; its name is foreign, or formatting what was read gives the name.

use firn_tier::footer::{FORMAT_VERSIONS, Footer, SectionKind, TRAILER_LENGTH, Trailer};
use firn_tier::names::{Found, ObjectName, PartitionPath, classify};

const MAGIC: &[u8; 8] = b"FirnSeg\n";

/// An input is eight bytes of the object's length, little-endian, and the object's last bytes. The same bytes are tried
/// as an object of their own length, with a trailer that is right for them, and as names.
pub fn object_footer(data: &[u8]) {
    let Some((object_bytes, tail)) = data.split_first_chunk::<8>() else { return };
    footer(tail, u64::from_le_bytes(*object_bytes));
    footer(tail, tail.len() as u64);
    for version in FORMAT_VERSIONS {
        let (sealed, object_bytes) = sealed(tail, version);
        footer(&sealed, object_bytes);
    }
    if let Ok(text) = std::str::from_utf8(tail) {
        names(text);
    }
}

fn footer(tail: &[u8], object_bytes: u64) {
    let parsed = Footer::parse(tail, object_bytes);
    let trailer = Trailer::parse(tail, object_bytes);
    let Ok(footer) = parsed else { return };
    let trailer = trailer.expect("a footer that is read has a trailer");
    let stored = &tail[tail.len() - trailer.footer_length()..];
    assert_eq!(footer.encode(), stored, "writing it again gives the same bytes");
    assert_eq!(footer.encoded_length(), stored.len());
    assert_eq!(footer.object_bytes, object_bytes);

    let mut end = 0u64;
    for kind in SectionKind::ALL {
        let section = footer.section(kind);
        assert_eq!(section.offset, end, "sections lie back to back");
        end = section.offset.checked_add(section.length).expect("within the object");
    }
    assert_eq!(end + stored.len() as u64, object_bytes, "sections and footer fill the object");
    let blocks = footer.section(SectionKind::Log).length.div_ceil(u64::from(footer.block_bytes));
    assert_eq!(footer.section(SectionKind::BlockChecksums).length, blocks * 4);
    let name = footer.name();
    assert_eq!(ObjectName::parse(&name.to_string()), Some(name), "its name can be listed");
    // Memory for the history of leaders is in proportion to the bytes that it was read from.
    assert!(footer.leader_epochs.entries().len() * 12 <= stored.len());
}

/// `tail` without what may be its trailer, and behind it one that is right: so that what the trailer guards is reached.
fn sealed(tail: &[u8], version: u16) -> (Vec<u8>, u64) {
    let body = &tail[..tail.len().saturating_sub(TRAILER_LENGTH)];
    let mut sealed = body.to_vec();
    // The last section's offset and length say how long the object must be.
    let number = |from_end: usize| {
        let at = body.len().checked_sub(from_end)?;
        let bytes = body.get(at..)?.first_chunk::<8>()?;
        Some(u64::from_be_bytes(*bytes))
    };
    let sections = number(20).unwrap_or(0).wrapping_add(number(12).unwrap_or(0));
    let object_bytes = sections.wrapping_add((body.len() + TRAILER_LENGTH) as u64);
    sealed.extend((body.len() as u32).to_be_bytes());
    sealed.extend(version.to_be_bytes());
    sealed.extend(0u16.to_be_bytes());
    sealed.extend(object_bytes.to_be_bytes());
    let crc = crc32c::crc32c(&sealed);
    sealed.extend(crc.to_be_bytes());
    sealed.extend(MAGIC);
    (sealed, object_bytes)
}

fn names(text: &str) {
    let segment = ObjectName::parse(text);
    if let Some(name) = segment {
        assert_eq!(name.to_string(), text);
        assert!(name.is_valid() && name.base_offset < name.end_offset());
    }
    match classify(text) {
        Found::Segment(name) => assert_eq!(Some(name), segment),
        found => assert!(segment.is_none(), "{found:?}"),
    }
    if let Some(path) = PartitionPath::parse(text) {
        assert_eq!(path.to_string(), text);
    }
}
