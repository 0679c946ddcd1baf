//! A config that is read from the file and then by nobody is obeyed by nobody: every field of the broker's settings is
//! read by the code that acts on it. That each key reaches its field is tested beside the settings.

use std::path::Path;

use crate::{files, text};

const SETTINGS: &str = "broker/core/model/src/broker_config/settings.rs";

/// Structs of settings and how the rest of the broker gets at them: `config.network`, or handed over by name.
const SECTIONS: [(&str, &str); 9] = [
    ("TopicSettings", ".topics"),
    ("NetworkSettings", ".network"),
    ("LogSettings", ".log"),
    ("OffsetsSettings", ".offsets"),
    ("GroupSettings", ".groups"),
    ("ReplicaSettings", ".replica"),
    ("BalanceSettings", ".balance"),
    ("TierSettings", ".tier"),
    ("HttpSettings", ".http"),
];

#[test]
fn every_setting_is_read_by_what_obeys_it() {
    let readers: Vec<String> = files(&["rs"])
        .iter()
        .filter(|path| path.starts_with("broker") && !path.starts_with("broker/core/model"))
        .filter(|path| !path.to_string_lossy().contains("tests"))
        .map(|path| text(path))
        .collect();
    let mut unread: Vec<String> = Vec::new();
    for (name, section, field) in fields() {
        let is_read = readers.iter().any(|text| {
            (text.contains(section) || text.contains(name)) && has_word(text, &format!(".{field}"))
        });
        if !is_read {
            unread.push(format!("{name}.{field}"));
        }
    }
    assert_eq!(unread, Vec::<String>::new(), "refuse the config with a reason, or obey it");
}

fn fields() -> Vec<(&'static str, &'static str, String)> {
    let settings = text(Path::new(SETTINGS));
    let mut found = Vec::new();
    let mut inside = None;
    for line in settings.lines() {
        if let Some(name) = line.strip_prefix("pub struct ").and_then(|rest| rest.strip_suffix(" {")) {
            let section = SECTIONS.iter().find(|(known, _)| *known == name);
            inside = Some(*section.unwrap_or_else(|| panic!("{name} has no section here")));
        } else if line == "}" {
            inside = None;
        } else if let (Some((name, section)), Some(field)) = (inside, line.trim().strip_prefix("pub ")) {
            found.push((name, section, field.split(':').next().unwrap_or_default().to_owned()));
        }
    }
    assert!(found.len() > 40, "only {} fields were found", found.len());
    found
}

fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let after = text[at + word.len()..].chars().next();
        !after.is_some_and(|letter| letter.is_ascii_alphanumeric() || letter == '_' || letter == '(')
    })
}
