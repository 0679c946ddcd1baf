//! Topics by pattern, as Kafka's tools take them: a regular expression for the whole name, or several with commas.

use regex_lite::Regex;

use crate::command::Failure;

#[derive(Debug, Clone)]
pub(super) struct TopicPattern(Regex);

impl TopicPattern {
    pub(super) fn new(text: &str) -> Result<Self, Failure> {
        let cleaned = text.trim().trim_matches(['"', '\'']).replace(' ', "").replace(',', "|");
        match Regex::new(&format!("^(?:{cleaned})$")) {
            Ok(pattern) => Ok(Self(pattern)),
            Err(error) => Err(format!("{text} is an invalid regex: {error}").into()),
        }
    }

    pub(super) fn matches(&self, topic: &str) -> bool {
        self.0.is_match(topic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_for_whole_names() {
        let pattern = TopicPattern::new("'orders, n.*'").unwrap();
        assert!(pattern.matches("orders") && pattern.matches("news"));
        assert!(!pattern.matches("orders-2") && !pattern.matches("old-news"));
        assert!(TopicPattern::new("(").is_err());
    }
}
