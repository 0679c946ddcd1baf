//! Variable-length integers as records use them: zig-zag, seven bits a byte, least significant first.

/// Longest encoding of 32 and of 64 bits.
const BYTES_MAX_32: usize = 5;
const BYTES_MAX_64: usize = 10;

/// Reads a signed 32-bit value from the front of `bytes` and moves past it; `None` if it is cut off or too long.
#[inline(always)]
pub fn read_i32(bytes: &mut &[u8]) -> Option<i32> {
    let (value, length) = read_unsigned(bytes, BYTES_MAX_32)?;
    let value = u32::try_from(value).ok()?;
    *bytes = &bytes[length..];
    Some(unzigzag(value.into()) as i32)
}

/// Reads a signed 64-bit value from the front of `bytes` and moves past it; `None` if it is cut off or too long.
#[inline(always)]
pub fn read_i64(bytes: &mut &[u8]) -> Option<i64> {
    let (value, length) = read_unsigned(bytes, BYTES_MAX_64)?;
    *bytes = &bytes[length..];
    Some(unzigzag(value))
}

/// The signed value that a zig-zag one stands for.
#[inline(always)]
pub(crate) fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[inline(always)]
fn read_unsigned(bytes: &[u8], bytes_max: usize) -> Option<(u64, usize)> {
    // Most values of real records take one byte, nearly all others two or three. These branches are well predicted,
    // which beats arithmetic on the length: the next value's place is then known before this one has been loaded.
    match *bytes {
        [a, ..] if a < 0x80 => Some((u64::from(a), 1)),
        [a, b, ..] if b < 0x80 => Some((u64::from(a & 0x7f) | u64::from(b) << 7, 2)),
        [a, b, c, ..] if c < 0x80 => {
            Some((u64::from(a & 0x7f) | u64::from(b & 0x7f) << 7 | u64::from(c) << 14, 3))
        }
        _ => read_long(bytes, bytes_max),
    }
}

#[cold]
fn read_long(bytes: &[u8], bytes_max: usize) -> Option<(u64, usize)> {
    let mut value = 0u64;
    for (index, &byte) in bytes.iter().enumerate().take(bytes_max) {
        let bits = u64::from(byte & 0x7f);
        let shift = 7 * index as u32;
        if shift == 63 && bits > 1 {
            return None;
        }
        value |= bits << shift;
        if byte < 0x80 {
            return Some((value, index + 1));
        }
    }
    None
}

pub fn write_i32(out: &mut Vec<u8>, value: i32) {
    write_unsigned(out, u64::from(((value << 1) ^ (value >> 31)) as u32));
}

pub fn write_i64(out: &mut Vec<u8>, value: i64) {
    write_unsigned(out, ((value << 1) ^ (value >> 63)) as u64);
}

fn write_unsigned(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_and_nothing_else_is_read() {
        for value in
            [0i64, 1, -1, 63, 64, -65, 300, i64::from(i32::MAX), i64::from(i32::MIN), i64::MAX, i64::MIN]
        {
            let mut out = Vec::new();
            write_i64(&mut out, value);
            out.push(0xff);
            let mut bytes = out.as_slice();
            assert_eq!(read_i64(&mut bytes), Some(value));
            assert_eq!(bytes, [0xff]);
            if let Ok(small) = i32::try_from(value) {
                let mut out = Vec::new();
                write_i32(&mut out, small);
                assert_eq!(read_i32(&mut out.as_slice()), Some(small));
            }
        }
    }

    #[test]
    fn cut_off_and_overlong_values_are_refused() {
        assert_eq!(read_i32(&mut [].as_slice()), None);
        assert_eq!(read_i32(&mut [0x80].as_slice()), None);
        assert_eq!(read_i32(&mut [0xff; 6].as_slice()), None);
        assert_eq!(read_i32(&mut [0xff, 0xff, 0xff, 0xff, 0x7f].as_slice()), None, "more than 32 bits");
        assert_eq!(read_i64(&mut [0xff; 11].as_slice()), None);
        assert_eq!(
            read_i64(&mut [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02].as_slice()),
            None
        );
    }
}
