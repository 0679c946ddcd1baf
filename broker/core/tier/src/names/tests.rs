//! Object names: spelled, read back, and told from foreign ones.

use firn_model::ids::TopicId;

use super::*;

const NAME: &str = "00000000000000000100-00000000000000000199-7-1700000000000-1048576.seg";

#[test]
fn names_read_as_they_are_written() {
    let name = ObjectName::parse(NAME).unwrap();
    let expected = ObjectName {
        base_offset: 100,
        last_offset: 199,
        leader_epoch: 7,
        max_timestamp: 1_700_000_000_000,
        log_bytes: 1_048_576,
    };
    assert_eq!(name, expected);
    assert_eq!(name.to_string(), NAME);
    let timeless = ObjectName { max_timestamp: -1, ..name };
    assert_eq!(ObjectName::parse(&timeless.to_string()), Some(timeless));
    assert!(NAME.starts_with(&name.range_prefix()));
}

#[test]
fn other_spellings_are_foreign() {
    for foreign in [
        "",
        ".seg",
        "100-199-7-1700000000000-1048576.seg",
        "00000000000000000100-00000000000000000199-07-1700000000000-1048576.seg",
        "00000000000000000100-00000000000000000199-+7-1700000000000-1048576.seg",
        "00000000000000000100-00000000000000000199-7-1700000000000--1.seg",
        "00000000000000000100-00000000000000000199-7--2-1.seg",
        "00000000000000000100-00000000000000000199-7-1700000000000-1048576.log",
        "00000000000000000199-00000000000000000100-7-1700000000000-1048576.seg",
        "99999999999999999999-99999999999999999999-7-1700000000000-1048576.seg",
        "00000000000000000100-00000000000000000199-7-1700000000000-1048576.seg.0000.part",
    ] {
        assert_eq!(classify(foreign), Found::Foreign, "{foreign}");
    }
    let staged = staged_name(&ObjectName::parse(NAME).unwrap(), 0xabc);
    assert_eq!(staged, format!("{NAME}.0000000000000abc.part"));
    assert_eq!(classify(&staged), Found::Staged);
}

#[test]
fn paths_read_as_they_are_written() {
    let path = PartitionPath {
        cluster_id: "MkU3OEVBNTcwNTJENDM2Qg".to_owned(),
        topic_partition: TopicPartition::new("orders.eu-1_x", 12),
        topic_id: TopicId::parse("AAAAAAAAAAAAAAAAAAAAAQ").unwrap(),
    };
    let text = "MkU3OEVBNTcwNTJENDM2Qg/topics/orders.eu-1_x.AAAAAAAAAAAAAAAAAAAAAQ/12";
    assert_eq!(path.to_string(), text);
    assert_eq!(PartitionPath::parse(text), Some(path));
    for bad in ["", "c/topics/t.AAAAAAAAAAAAAAAAAAAAAQ", "c/topics/t/1", "c/x/t.AAAAAAAAAAAAAAAAAAAAAQ/1"] {
        assert_eq!(PartitionPath::parse(bad), None, "{bad}");
    }
    assert_eq!(PartitionPath::parse(&format!("{text}/3")), None);
    assert_eq!(PartitionPath::parse(&text.replace("/12", "/012")), None);
}
