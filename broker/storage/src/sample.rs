//! Batches made by hand, for this crate's tests.

use firn_records::batch::{BatchHeader, CRC_START, HEADER_LENGTH, batches};

/// Key and value.
pub(crate) type SampleRecord = (Option<Vec<u8>>, Option<Vec<u8>>);

/// What a batch says.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) records: Vec<SampleRecord>,
    pub(crate) timestamp: i64,
    pub(crate) producer: Option<(i64, i16, i32)>,
    pub(crate) attributes: i16,
}

impl Sample {
    pub(crate) fn values(values: &[&[u8]]) -> Self {
        Self {
            records: values.iter().map(|value| (None, Some(value.to_vec()))).collect(),
            timestamp: 1_000,
            producer: None,
            attributes: 0,
        }
    }

    /// `count` records of `size` bytes of `fill`.
    pub(crate) fn filled(count: usize, size: usize, fill: u8) -> Self {
        Self {
            records: vec![(None, Some(vec![fill; size])); count],
            timestamp: 1_000,
            producer: None,
            attributes: 0,
        }
    }

    pub(crate) fn end_txn(commit: bool, coordinator_epoch: i32) -> Self {
        let key = [0, 0, 0, u8::from(commit)].to_vec();
        let mut value = vec![0, 0];
        value.extend_from_slice(&coordinator_epoch.to_be_bytes());
        Self {
            records: vec![(Some(key), Some(value))],
            timestamp: 1_000,
            producer: None,
            attributes: 0b11_0000,
        }
    }

    pub(crate) fn at(mut self, timestamp: i64) -> Self {
        self.timestamp = timestamp;
        self
    }

    pub(crate) fn by(mut self, id: i64, epoch: i16, sequence: i32) -> Self {
        self.producer = Some((id, epoch, sequence));
        self
    }

    pub(crate) fn transactional(mut self) -> Self {
        self.attributes |= 0b1_0000;
        self
    }

    /// The batch's bytes, base offset 0. Every record has the batch's timestamp.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let (id, epoch, sequence) = self.producer.unwrap_or((-1, -1, -1));
        let mut out = vec![0; HEADER_LENGTH];
        for (delta, (key, value)) in self.records.iter().enumerate() {
            let mut body = vec![0];
            put_varint(&mut body, 0);
            put_varint(&mut body, delta as i64);
            for field in [key, value] {
                match field {
                    Some(bytes) => {
                        put_varint(&mut body, bytes.len() as i64);
                        body.extend_from_slice(bytes);
                    }
                    None => put_varint(&mut body, -1),
                }
            }
            put_varint(&mut body, 0);
            put_varint(&mut out, body.len() as i64);
            out.extend_from_slice(&body);
        }
        let count = self.records.len() as i32;
        let length = out.len() as i32 - 12;
        out[8..12].copy_from_slice(&length.to_be_bytes());
        out[12..16].copy_from_slice(&(-1i32).to_be_bytes());
        out[16] = 2;
        out[21..23].copy_from_slice(&self.attributes.to_be_bytes());
        out[23..27].copy_from_slice(&(count - 1).to_be_bytes());
        out[27..35].copy_from_slice(&self.timestamp.to_be_bytes());
        out[35..43].copy_from_slice(&self.timestamp.to_be_bytes());
        out[43..51].copy_from_slice(&id.to_be_bytes());
        out[51..53].copy_from_slice(&epoch.to_be_bytes());
        out[53..57].copy_from_slice(&sequence.to_be_bytes());
        out[57..61].copy_from_slice(&count.to_be_bytes());
        let crc = crc32c::crc32c(&out[CRC_START..]);
        out[17..21].copy_from_slice(&crc.to_be_bytes());
        out
    }
}

/// The headers of batches that lie back to back.
pub(crate) fn headers(bytes: &[u8]) -> Vec<BatchHeader> {
    batches(bytes).map(|batch| batch.unwrap().0).collect()
}

fn put_varint(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push((rest as u8 & 0x7f) | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}
