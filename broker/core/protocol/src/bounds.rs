//! Bounds of a message, checked before the library decodes it: of requests by a broker, of responses by a client.
//!
//! The library allocates an array's elements from the count on the wire, before it has seen one of them: five bytes can
//! ask for gigabytes (the class of CVE-2022-34917). So every message is walked first, by a table of its fields, and is
//! refused where a length points past the frame, where there are more elements than the bytes left could hold, or where
//! what is decoded would take unreasonably more memory than what was sent. The walk allocates nothing.
//!
//! Architecture invariant: walk and library read the same bytes as the same fields. A test encodes each message at each
//! version with every field set and checks that the walk ends exactly where the library's encoding does.

use kafka_protocol::messages::ApiKey;

use crate::schemas;

/// How many times its frame's bytes one decoded array may take.
const GROWTH_MAX: usize = 8;
/// The same for responses: a partition without news takes 37 bytes of a Fetch response, and ten times that decoded.
const RESPONSE_GROWTH_MAX: usize = 16;
/// What one decoded array may take however small its frame.
const DECODED_BYTES_MIN: usize = 1 << 20;
/// Most tagged fields of one struct (KIP-482). Clients send a handful; each costs a map entry.
const TAGGED_FIELDS_MAX: u32 = 32;

/// Longest string, as in Kafka: before KIP-482 no length could say more.
const STRING_BYTES_MAX: usize = i16::MAX as usize;
/// Longest name that anything has (a topic, `Topic.MAX_NAME_LENGTH`).
const NAME_BYTES_MAX: usize = 249;
/// Most elements that all arrays of a request have together: what is made of each (a row of the reply, an error, the
/// tagged fields of a struct) takes a few hundred bytes, and some elements no more than four on the wire. Kafka's largest
/// clusters have fewer partitions.
const REQUEST_ELEMENTS_MAX: usize = 1 << 18;

/// Why a message is not decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BoundsError {
    #[error("the message ends inside a field, at byte {at}")]
    CutOff { at: usize },
    #[error("length {length} at byte {at} is impossible")]
    Length { length: i64, at: usize },
    #[error("{count} elements at byte {at} would take more memory than a message of {frame} bytes may")]
    TooMany { count: usize, at: usize, frame: usize },
    #[error(
        "element {REQUEST_ELEMENTS_MAX} at byte {at} is the last that a request may have: name fewer partitions at a time"
    )]
    TooManyInAll { at: usize },
    #[error(
        "a name of {length} bytes at byte {at} stands for too many elements: no topic has one longer than {NAME_BYTES_MAX}"
    )]
    LongName { length: usize, at: usize },
    #[error("{count} tagged fields at byte {at}: {TAGGED_FIELDS_MAX} are allowed")]
    TooManyTags { count: u32, at: usize },
    #[error("tagged field {tag} at byte {at} is out of order or not of its type's size")]
    Tag { tag: u32, at: usize },
    #[error("{left} bytes follow the message's last field")]
    Trailing { left: usize },
}

/// A struct's fields, in the order of the wire.
#[derive(Debug)]
pub struct Schema {
    /// From this version on lengths are compact and tagged fields follow (KIP-482); `None`: in no version.
    pub flexible_since: Option<i16>,
    pub fields: &'static [Field],
    /// Tagged fields that the library decodes, by tag; others are kept as bytes.
    pub tagged: &'static [(u32, Kind)],
}

/// A field and the versions that have it.
#[derive(Debug)]
pub struct Field {
    first: i16,
    last: i16,
    pub kind: Kind,
}

impl Field {
    /// Whether messages of this version have the field.
    pub fn is_in(&self, version: i16) -> bool {
        (self.first..=self.last).contains(&version)
    }
}

#[derive(Debug)]
pub enum Kind {
    /// A number, a boolean or a uuid of so many bytes.
    Fixed(usize),
    /// A string, nullable or not: the library tells.
    String,
    /// Bytes or records, nullable or not.
    Bytes,
    Array(&'static Array),
    Struct(&'static Schema),
    /// A struct behind a byte that says whether it is there.
    NullableStruct(&'static Schema),
}

#[derive(Debug)]
pub struct Array {
    pub element: Kind,
    /// Bytes that one element takes once it is decoded.
    pub size: usize,
}

/// The versions of a field that is to be described.
#[derive(Debug)]
pub struct Versions(i16, i16);

impl Versions {
    pub const fn is(self, kind: Kind) -> Field {
        Field { first: self.0, last: self.1, kind }
    }
}

pub const fn every() -> Versions {
    Versions(0, i16::MAX)
}

pub const fn since(first: i16) -> Versions {
    Versions(first, i16::MAX)
}

pub const fn until(last: i16) -> Versions {
    Versions(0, last)
}

pub const fn between(first: i16, last: i16) -> Versions {
    Versions(first, last)
}

/// Walks `body`, a request of `api` at `version`, to its end.
pub fn check(api: ApiKey, version: i16, body: &[u8]) -> Result<(), BoundsError> {
    let bounds = Bounds { growth: GROWTH_MAX, elements: REQUEST_ELEMENTS_MAX, name: NAME_BYTES_MAX };
    walk(schemas::of(api), version, body, bounds)
}

/// Walks `body`, a response of `api` at `version`, to its end: clients do not trust brokers with lengths, either.
pub fn check_response(api: ApiKey, version: i16, body: &[u8]) -> Result<(), BoundsError> {
    // A reply is as long as what was asked for, and there is one at a time.
    let bounds = Bounds { growth: RESPONSE_GROWTH_MAX, elements: usize::MAX, name: STRING_BYTES_MAX };
    walk(schemas::responses::of(api), version, body, bounds)
}

/// What a message may take.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// Of one array, decoded, to the frame.
    growth: usize,
    /// Of all arrays together.
    elements: usize,
    /// Bytes of a string that may stand for any number of elements.
    name: usize,
}

fn walk(schema: Option<&Schema>, version: i16, body: &[u8], bounds: Bounds) -> Result<(), BoundsError> {
    let mut walk = Walk { body, at: 0, version, bounds, elements: 0, depth: 0, long_name: 0, named: 0 };
    if let Some(schema) = schema {
        walk.schema(schema)?;
    }
    match body.len() - walk.at {
        0 => Ok(()),
        left => Err(BoundsError::Trailing { left }),
    }
}

struct Walk<'a> {
    body: &'a [u8],
    at: usize,
    version: i16,
    bounds: Bounds,
    /// Elements so far.
    elements: usize,
    /// Arrays that are being read.
    depth: usize,
    /// Bytes of a name, too long for one, in the element of an array that is being read; 0 where there is none.
    long_name: usize,
    /// What such names would take if each of their elements had a copy.
    named: usize,
}

impl Walk<'_> {
    fn schema(&mut self, schema: &Schema) -> Result<(), BoundsError> {
        let flexible = schema.flexible_since.is_some_and(|since| self.version >= since);
        for field in schema.fields {
            if field.is_in(self.version) {
                self.kind(&field.kind, flexible)?;
            }
        }
        if flexible { self.tagged(schema) } else { Ok(()) }
    }

    fn kind(&mut self, kind: &Kind, flexible: bool) -> Result<(), BoundsError> {
        match kind {
            Kind::Fixed(size) => self.skip(*size),
            Kind::String => {
                let length = if flexible { self.compact_length()? } else { self.short_length()? };
                if length > STRING_BYTES_MAX {
                    return Err(BoundsError::Length { length: length as i64, at: self.at });
                }
                if self.depth > 0 && length > self.bounds.name {
                    self.long_name = self.long_name.max(length);
                }
                self.skip(length)
            }
            Kind::Bytes => {
                let length = if flexible { self.compact_length()? } else { self.long_length()? };
                self.skip(length)
            }
            Kind::Array(array) => self.array(array, flexible),
            Kind::Struct(schema) => self.schema(schema),
            Kind::NullableStruct(schema) => match self.take::<1>()? {
                [0xff] => Ok(()),
                _ => self.schema(schema),
            },
        }
    }

    fn array(&mut self, array: &Array, flexible: bool) -> Result<(), BoundsError> {
        let at = self.at;
        let count = if flexible { self.compact_length()? } else { self.long_length()? };
        let frame = self.body.len();
        let allowed = frame.saturating_mul(self.bounds.growth).max(DECODED_BYTES_MIN);
        // No element takes less than a byte on the wire.
        if count > frame - self.at || count.saturating_mul(array.size) > allowed {
            return Err(BoundsError::TooMany { count, at, frame });
        }
        self.elements += count;
        if self.elements > self.bounds.elements {
            return Err(BoundsError::TooManyInAll { at });
        }
        // A handler may name what it works on once for each partition of a topic.
        self.named = self.named.saturating_add(count.saturating_mul(self.long_name));
        if self.named > allowed {
            return Err(BoundsError::LongName { length: self.long_name, at });
        }
        let outside = std::mem::take(&mut self.long_name);
        self.depth += 1;
        for _ in 0..count {
            self.kind(&array.element, flexible)?;
            self.long_name = 0;
        }
        self.depth -= 1;
        self.long_name = outside;
        Ok(())
    }

    fn tagged(&mut self, schema: &Schema) -> Result<(), BoundsError> {
        let at = self.at;
        let count = self.varint()?;
        if count > TAGGED_FIELDS_MAX {
            return Err(BoundsError::TooManyTags { count, at });
        }
        let mut previous = None;
        for _ in 0..count {
            let at = self.at;
            let tag = self.varint()?;
            let size = self.varint()? as usize;
            if previous.is_some_and(|previous| previous >= tag) {
                return Err(BoundsError::Tag { tag, at });
            }
            previous = Some(tag);
            let start = self.at;
            match schema.tagged.iter().find(|(known, _)| *known == tag) {
                // The library reads a tag that it knows by its type, not by its size: the two must agree.
                Some((_, kind)) => {
                    self.kind(kind, true)?;
                    if self.at - start != size {
                        return Err(BoundsError::Tag { tag, at });
                    }
                }
                None => self.skip(size)?,
            }
        }
        Ok(())
    }

    fn skip(&mut self, size: usize) -> Result<(), BoundsError> {
        if size > self.body.len() - self.at {
            return Err(BoundsError::CutOff { at: self.at });
        }
        self.at += size;
        Ok(())
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], BoundsError> {
        let taken =
            self.body[self.at..].first_chunk::<N>().copied().ok_or(BoundsError::CutOff { at: self.at })?;
        self.at += N;
        Ok(taken)
    }

    /// Length of a string before KIP-482; null is 0.
    fn short_length(&mut self) -> Result<usize, BoundsError> {
        let at = self.at;
        length(i64::from(i16::from_be_bytes(self.take()?)), at)
    }

    /// Length of bytes or of an array before KIP-482; null is 0.
    fn long_length(&mut self) -> Result<usize, BoundsError> {
        let at = self.at;
        length(i64::from(i32::from_be_bytes(self.take()?)), at)
    }

    /// Length of anything since KIP-482, which is sent plus one; null is 0.
    fn compact_length(&mut self) -> Result<usize, BoundsError> {
        let at = self.at;
        length(i64::from(self.varint()?) - 1, at)
    }

    fn varint(&mut self) -> Result<u32, BoundsError> {
        let at = self.at;
        let mut value = 0u64;
        for shift in (0..35).step_by(7) {
            let [byte] = self.take()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return u32::try_from(value).map_err(|_| BoundsError::Length { length: value as i64, at });
            }
        }
        Err(BoundsError::Length { length: value as i64, at })
    }
}

fn length(length: i64, at: usize) -> Result<usize, BoundsError> {
    match length {
        -1 => Ok(0),
        _ => usize::try_from(length).map_err(|_| BoundsError::Length { length, at }),
    }
}

#[cfg(test)]
mod response_tests;
#[cfg(test)]
mod tests;
