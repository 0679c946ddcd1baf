//! Layouts from fixed topics, and what the parser takes and refuses.

use clap::Parser;
use firn_client::topics::Partition;

use super::*;

#[derive(Debug, Parser)]
struct Line {
    #[command(subcommand)]
    command: crate::command::Command,
}

fn orders() -> Vec<Topic> {
    let partition = |index, leader| Partition {
        index,
        leader,
        replicas: vec![1, 2],
        in_sync: vec![1],
        eligible: None,
        last_eligible: None,
    };
    let partitions = vec![partition(0, Some(1)), partition(10, None)];
    vec![Topic { name: "orders".to_owned(), id: "an-id".to_owned(), internal: false, partitions }]
}

#[test]
fn tables_are_aligned() {
    assert_eq!(listed(Output::Table, &orders()).unwrap(), "TOPIC   PARTITIONS\norders  2\n");
    let expected = "TOPIC   PARTITION  LEADER  REPLICAS  IN SYNC\n\
                    orders  0          1       1,2       1\n\
                    orders  10         none    1,2       1\n";
    assert_eq!(described(Output::Table, &orders()).unwrap(), expected);
}

#[test]
fn json_is_for_programs() {
    let expected = "[{\"name\":\"orders\",\"id\":\"an-id\",\"internal\":false,\"partitions\":2}]\n";
    assert_eq!(listed(Output::Json, &orders()).unwrap(), expected);
    let told = described(Output::Json, &orders()).unwrap();
    assert!(
        told.contains(r#"{"topic":"orders","partition":10,"leader":null,"replicas":[1,2],"in_sync":[1]}"#)
    );
    assert_eq!(done(Output::Json, "created", "orders").unwrap(), "{\"created\":\"orders\"}\n");
}

#[test]
fn lines_are_taken_or_refused_as_misuse() {
    for line in [
        "firn topic create orders --partitions 3 --config retention.ms=1 --config a=b",
        "firn topic list --internal --output json",
        "firn topic describe orders --bootstrap one:9092,two:9092",
        "firn topic alter orders --partitions 6 --config retention.ms=1 --reset segment.ms",
        "firn topic trim orders --partition 0 --partition 1 --before 100",
        "firn topic trim orders --all --output json",
        "firn topic delete orders news",
        "firn topic create --topic orders --partitions 3",
        "firn topic describe --topic orders",
        "firn topic delete --topic orders --topic news",
        "firn produce --topic orders",
        "firn consume --topic orders --from-beginning",
        "firn kafka-topics --create --bootstrap-server h:1 --replication-factor 1 --partitions 13 --topic my-topic",
        "firn kafka-topics --list --bootstrap-server h:1",
    ] {
        Line::try_parse_from(line.split(' ')).unwrap();
    }
    for line in [
        "firn topic create orders --partitions 0",
        "firn topic create orders --config nothing",
        "firn topic describe",
        "firn topic alter orders",
        "firn topic trim orders",
        "firn topic trim orders --all --before 1",
        "firn topic delete",
        "firn topic describe orders --topic news",
        "firn consume",
        "firn kafka-topics --bootstrap-server h:1",
        "firn kafka-topics --create --list --bootstrap-server h:1",
        "firn kafka-topics --create --bootstrap-server h:1",
        "firn kafka-topics --delete --bootstrap-server h:1",
    ] {
        assert_eq!(Line::try_parse_from(line.split(' ')).unwrap_err().exit_code(), 2, "{line}");
    }
}

#[test]
fn what_a_trim_leaves_is_told_and_a_refusal_fails() {
    let ended = || BTreeMap::from([(0, Ok(4)), (1, Ok(10))]);
    let expected = "TOPIC   PARTITION  FIRST OFFSET\norders  0          4\norders  1          10\n";
    assert_eq!(trimmed(Output::Table, "orders", ended()).unwrap(), expected);
    let told = trimmed(Output::Json, "orders", ended()).unwrap();
    assert!(told.contains(r#"{"first_offset":4,"partition":0,"topic":"orders"}"#), "{told}");
    let refused = Error::Refused { what: "delete records".to_owned(), code: 1, message: None };
    let mut partly = ended();
    partly.insert(2, Err(refused));
    assert!(trimmed(Output::Table, "orders", partly).is_err());
}

#[test]
fn a_topic_that_cannot_be_deleted_keeps_none_of_the_others() {
    let refused = Error::Refused { what: "delete topic a".to_owned(), code: 3, message: None };
    let failure = deleted(Output::Table, vec![("a", Err(refused)), ("b", Ok(()))]).unwrap_err();
    let partly = failure.downcast::<Partly>().unwrap();
    assert_eq!(partly.said, "Topic b is deleted.\n");
    assert_eq!(partly.refused.len(), 1);
    assert!(partly.refused[0].starts_with("cannot delete topic a: "), "{partly:?}");
}
