//! Checksums inside of small files, where Kafka's readers do not look: in blanks that end a checkpoint's last line, which are skipped,
//! and in a line behind those that are asked for.
//!
//! So a file and its checksum are replaced as one, and no crash comes between. A file without a checksum is Kafka's or an earlier
//! release's, or somebody's own, and is believed.

/// One blank a bit, the highest first: a space for 0, a tab for 1.
const BLANKS: u32 = 32;

/// Ends a text's last line with the blanks.
pub(crate) fn with_blanks(text: &str) -> String {
    let line = text.trim_end_matches('\n');
    let sum = crc32c::crc32c(line.as_bytes());
    let blanks = (0..BLANKS).rev().map(|bit| if (sum >> bit) & 1 == 1 { '\t' } else { ' ' });
    format!("{line}{}\n", blanks.collect::<String>())
}

/// Holds a text against the blanks at its end, if there are any. The error says what is wrong.
pub(crate) fn check_blanks(text: &str) -> Result<(), String> {
    let sealed = text.strip_suffix('\n').ok_or("its last line is not whole")?;
    let line = sealed.trim_end_matches([' ', '\t']);
    let blanks = sealed.get(line.len()..).unwrap_or_default();
    // Between fields there is one.
    if blanks.is_empty() && !line.contains("  ") && !line.contains('\t') {
        return Ok(());
    }
    if blanks.len() != BLANKS as usize {
        return Err("the checksum at its end is not whole".to_owned());
    }
    let noted = blanks.chars().fold(0, |sum, blank| (sum << 1) | u32::from(blank == '\t'));
    compare(noted, line.as_bytes())
}

/// Ends a text with a line of its checksum, which begins with `key`.
pub(crate) fn with_line(text: &str, key: &str) -> String {
    format!("{text}{key}{:08x}\n", crc32c::crc32c(text.as_bytes()))
}

/// Holds a text against the line at its end, and returns what is before it; `None` if there is no such line.
pub(crate) fn check_line<'a>(text: &'a str, key: &str) -> Result<Option<&'a str>, String> {
    let Some((before, line)) = text.rsplit_once(key) else { return Ok(None) };
    let digits = line.strip_suffix('\n').filter(|digits| digits.len() == 8);
    let noted = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
    compare(noted.ok_or("the checksum at its end is not whole")?, before.as_bytes())?;
    Ok(Some(before))
}

fn compare(noted: u32, bytes: &[u8]) -> Result<(), String> {
    match crc32c::crc32c(bytes) {
        computed if computed == noted => Ok(()),
        computed => Err(format!("its checksum is {computed:08x}, not {noted:08x}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every text that differs in one bit, as far as it is text.
    fn hurt(text: &str) -> impl Iterator<Item = String> {
        (0..text.len() * 8).filter_map(|bit| {
            let mut bytes = text.as_bytes().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            String::from_utf8(bytes).ok()
        })
    }

    #[test]
    fn no_bit_flips_unnoticed_before_blanks() {
        let text = with_blanks("0\n1\na 0 100\n");
        assert_eq!(text.trim_end(), "0\n1\na 0 100");
        assert_eq!(check_blanks(&text), Ok(()));
        for hurt in hurt(&text) {
            assert!(check_blanks(&hurt).is_err(), "{hurt:?}");
        }
        for end in 0..text.len() {
            let is_line = text[..end].ends_with('\n');
            assert!(is_line || check_blanks(&text[..end]).is_err(), "{end}");
        }
        assert_eq!(check_blanks("0\n1\na 0 100\n"), Ok(()), "nobody has given it one");
    }

    #[test]
    fn no_bit_flips_unnoticed_before_a_line() {
        let text = with_line("a=1\n", "crc=");
        assert_eq!(check_line(&text, "crc="), Ok(Some("a=1\n")));
        for hurt in hurt(&text) {
            let is_refused = check_line(&hurt, "crc=").is_err();
            assert!(is_refused || hurt.starts_with("a=1\n"), "{hurt:?}");
        }
        assert_eq!(check_line("a=1\n", "crc="), Ok(None));
    }
}
