//! Checks a log on its way to the store: what is damaged on the local disk must not become the only copy.

use firn_records::batch::{BatchHeader, CRC_START, HEADER_LENGTH};

/// Takes a log in pieces of any size: whole batches, right CRCs, offsets that rise and lie within the segment.
#[derive(Debug)]
pub(crate) struct LogCheck {
    next_offset: i64,
    last_offset: i64,
    header: Vec<u8>,
    body: Option<Body>,
}

#[derive(Debug)]
struct Body {
    left: usize,
    crc: u32,
    stored: u32,
    base_offset: i64,
}

impl LogCheck {
    pub(crate) fn new(base_offset: i64, last_offset: i64) -> Self {
        Self { next_offset: base_offset, last_offset, header: Vec::with_capacity(HEADER_LENGTH), body: None }
    }

    pub(crate) fn feed(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        while !bytes.is_empty() {
            let Some(body) = &mut self.body else {
                let (now, rest) = bytes.split_at(bytes.len().min(HEADER_LENGTH - self.header.len()));
                self.header.extend_from_slice(now);
                bytes = rest;
                if self.header.len() == HEADER_LENGTH {
                    self.begin_body()?;
                    self.end_body()?;
                }
                continue;
            };
            let (now, rest) = bytes.split_at(bytes.len().min(body.left));
            body.crc = crc32c::crc32c_append(body.crc, now);
            body.left -= now.len();
            bytes = rest;
            self.end_body()?;
        }
        Ok(())
    }

    fn begin_body(&mut self) -> Result<(), String> {
        let header = BatchHeader::parse(&self.header).map_err(|error| error.to_string())?;
        if header.base_offset < self.next_offset
            || header.last_offset() < header.base_offset
            || header.last_offset() > self.last_offset
        {
            return Err(format!(
                "batch {}-{} is out of order or out of range",
                header.base_offset,
                header.last_offset()
            ));
        }
        self.next_offset = header.next_offset();
        self.body = Some(Body {
            left: header.size_in_bytes().saturating_sub(HEADER_LENGTH),
            crc: crc32c::crc32c(self.header.get(CRC_START..).unwrap_or_default()),
            stored: header.crc,
            base_offset: header.base_offset,
        });
        self.header.clear();
        Ok(())
    }

    fn end_body(&mut self) -> Result<(), String> {
        let Some(body) = self.body.take_if(|body| body.left == 0) else { return Ok(()) };
        if body.crc == body.stored {
            Ok(())
        } else {
            Err(format!("the batch at offset {} does not match its CRC", body.base_offset))
        }
    }

    /// To be called after the last piece.
    pub(crate) fn finish(&self) -> Result<(), String> {
        if self.header.is_empty() && self.body.is_none() {
            Ok(())
        } else {
            Err("its last batch is cut off".to_owned())
        }
    }
}
