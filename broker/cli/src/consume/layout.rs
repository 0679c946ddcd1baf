//! How a record is printed: by a format of the caller's, as JSON, or as Kafka's console consumer prints it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use firn_client::consumer::Incoming;
use serde_json::{Map, Value, json};

/// How a record is printed.
#[derive(Debug)]
pub(super) enum Layout {
    Json,
    Format(String),
    Console(Console),
}

/// The parts that Kafka's `DefaultMessageFormatter` prints.
#[derive(Debug, Default)]
pub(super) struct Console {
    timestamp: bool,
    partition: bool,
    offset: bool,
    headers: bool,
    key: bool,
    no_value: bool,
    separator: Option<String>,
    line: Option<String>,
}

impl Console {
    pub(super) fn new(properties: Vec<(String, String)>) -> Self {
        let mut console = Self::default();
        for (key, value) in properties {
            let yes = value == "true";
            match key.as_str() {
                "print.timestamp" => console.timestamp = yes,
                "print.partition" => console.partition = yes,
                "print.offset" => console.offset = yes,
                "print.headers" => console.headers = yes,
                "print.key" => console.key = yes,
                "print.value" => console.no_value = !yes,
                "key.separator" => console.separator = Some(value),
                _ => console.line = Some(value),
            }
        }
        console
    }

    fn print(&self, record: &Incoming) -> Vec<u8> {
        let null_or = |bytes: &Option<bytes::Bytes>| bytes.as_deref().unwrap_or(b"null").to_vec();
        let mut parts = Vec::new();
        if self.timestamp {
            parts.push(format!("CreateTime:{}", record.timestamp).into_bytes());
        }
        if self.partition {
            parts.push(format!("Partition:{}", record.partition).into_bytes());
        }
        if self.offset {
            parts.push(format!("Offset:{}", record.offset).into_bytes());
        }
        if self.headers {
            parts.push(Some(headers(record)).filter(|all| !all.is_empty()).unwrap_or(b"NO_HEADERS".to_vec()));
        }
        if self.key {
            parts.push(null_or(&record.key));
        }
        if !self.no_value {
            parts.push(null_or(&record.value));
        }
        let mut line = parts.join(self.separator.as_deref().unwrap_or("\t").as_bytes());
        line.extend_from_slice(self.line.as_deref().unwrap_or("\n").as_bytes());
        line
    }
}

/// `name:value,name:value`, as Kafka's formatter prints them.
fn headers(record: &Incoming) -> Vec<u8> {
    let pairs = record
        .headers
        .iter()
        .map(|(name, value)| [name.as_ref(), value.as_deref().unwrap_or(b"null")].join(&b":"[..]));
    pairs.collect::<Vec<_>>().join(&b","[..])
}

impl Layout {
    pub(super) fn print(&self, topic: &str, record: &Incoming) -> Vec<u8> {
        match self {
            Self::Json => json_line(topic, record),
            Self::Format(format) => formatted(format, topic, record),
            Self::Console(console) => console.print(record),
        }
    }
}

/// Bytes that are no UTF-8 lose as text what cannot be shown, and stand next to it in base64.
fn json_line(topic: &str, record: &Incoming) -> Vec<u8> {
    let headers: Vec<_> = record
        .headers
        .iter()
        .map(|(name, value)| {
            let mut header = Map::new();
            put_bytes(&mut header, "name", Some(name));
            put_bytes(&mut header, "value", value.as_deref());
            header
        })
        .collect();
    let mut line = Map::new();
    line.insert("topic".to_owned(), topic.into());
    line.insert("partition".to_owned(), record.partition.into());
    line.insert("offset".to_owned(), record.offset.into());
    line.insert("timestamp".to_owned(), record.timestamp.into());
    put_bytes(&mut line, "key", record.key.as_deref());
    put_bytes(&mut line, "value", record.value.as_deref());
    line.insert("headers".to_owned(), json!(headers));
    format!("{}\n", Value::Object(line)).into_bytes()
}

/// Text under this name; what is no text in base64, too, under the name with `_base64` behind it.
fn put_bytes(line: &mut Map<String, Value>, name: &str, bytes: Option<&[u8]>) {
    if let Some(bytes) = bytes
        && std::str::from_utf8(bytes).is_err()
    {
        line.insert(format!("{name}_base64"), STANDARD.encode(bytes).into());
    }
    line.insert(name.to_owned(), bytes.map(String::from_utf8_lossy).into());
}

fn formatted(format: &str, topic: &str, record: &Incoming) -> Vec<u8> {
    let mut line = Vec::new();
    let mut letters = format.chars();
    let mut letter_bytes = [0; 4];
    while let Some(letter) = letters.next() {
        let escaped = if matches!(letter, '%' | '\\') { letters.clone().next() } else { None };
        match (letter, escaped) {
            ('%', Some('t')) => line.extend_from_slice(topic.as_bytes()),
            ('%', Some('p')) => line.extend_from_slice(record.partition.to_string().as_bytes()),
            ('%', Some('o')) => line.extend_from_slice(record.offset.to_string().as_bytes()),
            ('%', Some('T')) => line.extend_from_slice(record.timestamp.to_string().as_bytes()),
            ('%', Some('k')) => line.extend_from_slice(record.key.as_deref().unwrap_or_default()),
            ('%', Some('v')) => line.extend_from_slice(record.value.as_deref().unwrap_or_default()),
            ('%', Some('h')) => line.extend_from_slice(&headers(record)),
            ('%', Some('%')) => line.push(b'%'),
            ('\\', Some('n')) => line.push(b'\n'),
            ('\\', Some('t')) => line.push(b'\t'),
            _ => {
                line.extend_from_slice(letter.encode_utf8(&mut letter_bytes).as_bytes());
                continue;
            }
        }
        letters.next();
    }
    line
}

/// A property of the console's formatter, as `KEY=VALUE`.
pub(super) fn property(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE, for example print.key=true")?;
    match key {
        "print.timestamp" | "print.partition" | "print.offset" | "print.headers" | "print.key"
        | "print.value"
            if value.parse::<bool>().is_ok() => {}
        "key.separator" | "line.separator" => {}
        _ => return Err(format!("{key} is not known, or cannot be {value}")),
    }
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Incoming {
        Incoming {
            partition: 1,
            offset: 42,
            timestamp: 1000,
            key: Some("k".into()),
            value: None,
            headers: vec![("h".into(), Some("x".into())), ("n".into(), None)],
        }
    }

    fn printed(layout: &Layout) -> String {
        String::from_utf8(layout.print("orders", &record())).unwrap()
    }

    #[test]
    fn formats_name_the_parts_of_a_record() {
        let format = |text: &str| printed(&Layout::Format(text.to_owned()));
        assert_eq!(format("%t/%p/%o %T\\t%k=%v [%h]\\n"), "orders/1/42 1000\tk= [h:x,n:null]\n");
        assert_eq!(format("100%% %x \\q %"), "100% %x \\q %");
    }

    #[test]
    fn json_tells_null_from_empty() {
        let expected = serde_json::json!({
            "topic": "orders", "partition": 1, "offset": 42, "timestamp": 1000, "key": "k", "value": null,
            "headers": [{ "name": "h", "value": "x" }, { "name": "n", "value": null }],
        });
        let line: serde_json::Value = serde_json::from_str(&printed(&Layout::Json)).unwrap();
        assert_eq!(line, expected);
    }

    #[test]
    fn json_loses_no_byte() {
        let noise = Incoming {
            key: Some(vec![0xff, 0x00].into()),
            value: Some("sn\u{f6}".into()),
            headers: vec![("h".into(), Some(vec![0xc3].into()))],
            ..record()
        };
        let line: Value = serde_json::from_slice(&Layout::Json.print("orders", &noise)).unwrap();
        assert_eq!((&line["key"], &line["key_base64"]), (&json!("\u{fffd}\0"), &json!("/wA=")));
        assert_eq!((&line["value"], line.get("value_base64")), (&json!("sn\u{f6}"), None));
        let header = json!({ "name": "h", "value": "\u{fffd}", "value_base64": "ww==" });
        assert_eq!(line["headers"], json!([header]));
    }

    #[test]
    fn the_console_prints_parts_in_the_order_of_kafka() {
        let all = ["timestamp", "partition", "offset", "headers", "key"];
        let properties = all.iter().map(|part| property(&format!("print.{part}=true")).unwrap());
        let mut console = Console::new(properties.collect());
        let expected = "CreateTime:1000\tPartition:1\tOffset:42\th:x,n:null\tk\tnull\n";
        assert_eq!(String::from_utf8(console.print(&record())).unwrap(), expected);
        console.separator = Some("|".to_owned());
        let plain = Incoming { headers: Vec::new(), ..record() };
        assert!(String::from_utf8(console.print(&plain)).unwrap().contains("|NO_HEADERS|k|null\n"));
        assert!(property("print.key=maybe").is_err() && property("color=red").is_err());
    }
}
