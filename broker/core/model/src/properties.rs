//! Reads and writes Java's `.properties` files, as `server.properties` is one.
//!
//! The grammar is that of `java.util.Properties.load`: `key=value`, `key: value` or `key value`; `#` and `!` start a
//! comment line; a backslash at the end of a line joins the next one; `\t \n \r \f \uXXXX` and `\` before any other
//! character are escapes. A key given twice has its last value.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::str::Chars;

/// Why a text is not a properties file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PropertiesError {
    #[error("line {line}: '\\u' must be followed by four hexadecimal digits")]
    MalformedUnicodeEscape { line: usize },
    #[error("line {line}: '\\u' escapes half of a character: write both halves of the surrogate pair")]
    LoneSurrogate { line: usize },
}

/// Parses a whole file. Keys are ordered by name; of a key that stands twice, the last value counts, as in Java.
pub fn parse(text: &str) -> Result<BTreeMap<String, String>, PropertiesError> {
    let mut properties = BTreeMap::new();
    for (line, logical) in logical_lines(text) {
        let mut characters = logical.chars().peekable();
        let key = unescape(&mut characters, line, true)?;
        skip_separator(&mut characters);
        let value = unescape(&mut characters, line, false)?;
        properties.insert(key, value);
    }
    Ok(properties)
}

/// Writes a file that is read as these properties, one a line.
pub fn write(properties: &BTreeMap<String, String>) -> String {
    let mut text = String::new();
    for (key, value) in properties {
        escape(key, true, &mut text);
        text.push('=');
        escape(value, false, &mut text);
        text.push('\n');
    }
    text
}

fn escape(plain: &str, key: bool, text: &mut String) {
    for (at, c) in plain.char_indices() {
        let escaped = match c {
            '\t' => Some('t'),
            '\n' => Some('n'),
            '\r' => Some('r'),
            '\u{c}' => Some('f'),
            '\\' => Some(c),
            // Blanks before a value belong to the separator.
            ' ' if key || at == 0 => Some(c),
            '=' | ':' | '#' | '!' if key => Some(c),
            _ => None,
        };
        if escaped.is_some() {
            text.push('\\');
        }
        text.push(escaped.unwrap_or(c));
    }
}

/// Joins continued lines and drops comments and blank lines. Each comes with the number of its first line, from 1.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (index, natural) in natural_lines(text).into_iter().enumerate() {
        let content = natural.trim_start_matches(is_blank);
        let (first, mut logical) = match open.take() {
            Some(continued) => continued,
            None if content.is_empty() || content.starts_with(['#', '!']) => continue,
            None => (index + 1, String::new()),
        };
        let backslashes = content.chars().rev().take_while(|&c| c == '\\').count();
        if backslashes % 2 == 1 {
            logical.push_str(content.strip_suffix('\\').unwrap_or(content));
            open = Some((first, logical));
        } else {
            logical.push_str(content);
            lines.push((first, logical));
        }
    }
    lines.extend(open);
    lines
}

/// Lines that end in `\n`, `\r` or `\r\n`.
fn natural_lines(text: &str) -> Vec<&str> {
    text.split('\n').flat_map(|line| line.strip_suffix('\r').unwrap_or(line).split('\r')).collect()
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\u{c}')
}

fn skip_separator(characters: &mut Peekable<Chars<'_>>) {
    while characters.next_if(|&c| is_blank(c)).is_some() {}
    if characters.next_if(|&c| c == '=' || c == ':').is_some() {
        while characters.next_if(|&c| is_blank(c)).is_some() {}
    }
}

/// Takes a key, up to its separator, or a value, up to the end.
fn unescape(characters: &mut Peekable<Chars<'_>>, line: usize, key: bool) -> Result<String, PropertiesError> {
    let mut text = String::new();
    while let Some(c) = characters.next_if(|&c| !key || !(is_blank(c) || c == '=' || c == ':')) {
        if c != '\\' {
            text.push(c);
            continue;
        }
        match characters.next() {
            Some('t') => text.push('\t'),
            Some('n') => text.push('\n'),
            Some('r') => text.push('\r'),
            Some('f') => text.push('\u{c}'),
            Some('u') => text.push(unicode_escape(characters, line)?),
            Some(other) => text.push(other),
            None => {}
        }
    }
    Ok(text)
}

/// Reads what follows `\u`; Java writes a character beyond 16 bits as two escapes.
fn unicode_escape(characters: &mut Peekable<Chars<'_>>, line: usize) -> Result<char, PropertiesError> {
    let high = four_digits(characters, line)?;
    if let Some(c) = char::from_u32(high) {
        return Ok(c);
    }
    let lone = PropertiesError::LoneSurrogate { line };
    if characters.next() != Some('\\') || characters.next() != Some('u') {
        return Err(lone);
    }
    let low = four_digits(characters, line)?;
    if !(0xd800..0xdc00).contains(&high) || !(0xdc00..0xe000).contains(&low) {
        return Err(lone);
    }
    char::from_u32(0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00)).ok_or(lone)
}

fn four_digits(characters: &mut Peekable<Chars<'_>>, line: usize) -> Result<u32, PropertiesError> {
    let mut value = 0;
    for _ in 0..4 {
        let digit = characters
            .next()
            .and_then(|c| c.to_digit(16))
            .ok_or(PropertiesError::MalformedUnicodeEscape { line })?;
        value = value * 16 + digit;
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn java_reads_the_same() {
        // Each value was read by java.util.Properties once.
        for (text, key, value) in [
            ("a=b", "a", "b"),
            ("  a  =  b  ", "a", "b  "),
            ("a:b", "a", "b"),
            ("a b c", "a", "b c"),
            ("a = = b", "a", "= b"),
            ("a", "a", ""),
            ("a=", "a", ""),
            ("=b", "", "b"),
            ("# c\n! c\n\n \t\na=b", "a", "b"),
            ("a=b # no comment", "a", "b # no comment"),
            ("a=b\\\n   c", "a", "bc"),
            ("a=b\\\\\nc=d", "a", "b\\"),
            ("a=b\\\n# not a comment", "a", "b# not a comment"),
            ("a=1\na=2", "a", "2"),
            ("a\\ b\\=c\\:d=e", "a b=c:d", "e"),
            ("a=x\\ty\\nz\\qw", "a", "x\ty\nzqw"),
            ("a=\\u00e4\\u20AC", "a", "ä€"),
            ("a=\\uD83D\\uDE00", "a", "😀"),
            ("a=b\r\nc=d\r", "c", "d"),
            ("a=b\rc=d", "c", "d"),
            ("a=b\\", "a", "b"),
            ("log.dirs=C:\\\\kafka", "log.dirs", "C:\\kafka"),
        ] {
            let properties = parse(text).unwrap();
            assert_eq!(properties.get(key).map(String::as_str), Some(value), "{text:?} is {properties:?}");
        }
    }

    #[test]
    fn a_broken_escape_is_an_error_that_names_its_line() {
        assert_eq!(parse("a=b\nc=\\u12"), Err(PropertiesError::MalformedUnicodeEscape { line: 2 }));
        assert_eq!(parse("c=\\u12xz"), Err(PropertiesError::MalformedUnicodeEscape { line: 1 }));
        assert_eq!(parse("c=\\uD83D"), Err(PropertiesError::LoneSurrogate { line: 1 }));
        assert_eq!(parse("c=\\uDE00\\uD83D"), Err(PropertiesError::LoneSurrogate { line: 1 }));
    }

    #[test]
    fn what_is_written_is_plain_where_it_can_be() {
        let pairs = [("log.dirs", "/a b/c"), ("x y", " C:\\d\n"), ("z", "")];
        let properties: BTreeMap<String, String> =
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        assert_eq!(write(&properties), "log.dirs=/a b/c\nx\\ y=\\ C:\\\\d\\n\nz=\n");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[ -~\\n\\r\\t\\\\]{0,80}") {
            if let Err(error) = parse(&text) {
                prop_assert!(error.to_string().starts_with("line "), "{error}");
            }
        }

        #[test]
        fn what_is_written_is_read_back(
            properties in proptest::collection::btree_map(
                "[ -~\\n\\r\\t\u{c}ä😀]{0,8}",
                "[ -~\\n\\r\\t\u{c}ä😀]{0,8}",
                0..4,
            ),
        ) {
            prop_assert_eq!(parse(&write(&properties)), Ok(properties));
        }

        #[test]
        fn what_is_escaped_is_read_back(key in any::<String>(), value in any::<String>()) {
            let escaped = |text: &str| -> String {
                text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect()
            };
            let read = parse(&format!("x=y\n{} = {}\n", escaped(&key), escaped(&value))).unwrap();
            prop_assert_eq!(read.get(&key), Some(&value));
        }
    }
}
