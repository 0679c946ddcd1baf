//! Layouts of the console, held against what Kafka's tool printed.

use std::collections::BTreeMap;

use firn_client::cluster::Broker;
use firn_client::groups::{Committed, Group, Member};

use super::describe::{members, offsets, state};
use super::*;

fn group(instance: Option<&str>) -> Group {
    let member = Member {
        id: "console-consumer-157c1ddb-5cd6-05c5-73c8-bbb6a3369c65".to_owned(),
        instance: instance.map(str::to_owned),
        client_id: "console-consumer".to_owned(),
        host: "/127.0.0.1".to_owned(),
        assigned: vec![("one".to_owned(), 0), ("one".to_owned(), 1)],
    };
    Group {
        group: "live".to_owned(),
        state: "Stable".to_owned(),
        protocol: "range".to_owned(),
        members: vec![member],
    }
}

#[test]
fn offsets_stand_in_the_columns_of_kafka() {
    let place = |partition| ("one".to_owned(), partition);
    let committed = |offset| Committed { offset, leader_epoch: (offset > 0).then_some(3) };
    let committed = BTreeMap::from([(place(0), committed(10)), (place(2), committed(0))]);
    let ends = BTreeMap::from([(place(0), 12), (place(1), 5)]);
    let told = offsets(&group(None), &committed, &ends, false);
    let expected = "
GROUP           TOPIC           PARTITION  CURRENT-OFFSET  LOG-END-OFFSET  LAG             CONSUMER-ID                                           HOST            CLIENT-ID
live            one             0          10              12              2               console-consumer-157c1ddb-5cd6-05c5-73c8-bbb6a3369c65 /127.0.0.1      console-consumer
live            one             1          -               5               -               console-consumer-157c1ddb-5cd6-05c5-73c8-bbb6a3369c65 /127.0.0.1      console-consumer
live            one             2          0               -               -               -                                                     -               -
";
    assert_eq!(told, expected);
    let verbose = offsets(&group(None), &committed, &ends, true);
    assert!(verbose.contains("PARTITION  LEADER-EPOCH    CURRENT-OFFSET"), "{verbose}");
    assert!(verbose.contains("one             0          3               10  "), "{verbose}");
}

#[test]
fn members_and_state_stand_in_the_columns_of_kafka() {
    let expected = "
GROUP           CONSUMER-ID                                           HOST            CLIENT-ID        #PARTITIONS     
live            console-consumer-157c1ddb-5cd6-05c5-73c8-bbb6a3369c65 /127.0.0.1      console-consumer 2               
";
    assert_eq!(members(&group(None), false), expected);
    let fixed = members(&group(Some("first")), true);
    assert!(fixed.contains(" GROUP-INSTANCE-ID HOST "), "{fixed}");
    assert!(fixed.contains(" first             /127.0.0.1 "), "{fixed}");
    assert!(
        fixed.contains(" 2               -               one:0,1              -               -  "),
        "{fixed}"
    );

    let coordinator = Broker { id: 0, address: "127.0.0.1:19392".to_owned(), rack: None };
    let expected = "
GROUP           COORDINATOR (ID)          ASSIGNMENT-STRATEGY  STATE                #MEMBERS
live            127.0.0.1:19392  (0)      range                Stable               1
";
    assert_eq!(state(&group(None), &coordinator, false), expected);
}

#[test]
fn lists_are_filtered_by_state_and_type() {
    let found = || {
        let listed = |group: &str, state: &str| Listed {
            group: group.to_owned(),
            protocol_type: "consumer".to_owned(),
            state: state.to_owned(),
            group_type: "classic".to_owned(),
        };
        vec![listed("a", "Stable"), listed("b", "Empty")]
    };
    assert_eq!(listed(found(), None, None).unwrap(), "a\nb\n");
    let expected = "GROUP                     TYPE                 STATE               \n\
                    a                         Classic              Stable              \n";
    assert_eq!(listed(found(), Some("stable"), Some("Classic")).unwrap(), expected);
    let told = listed(found(), Some("lost"), None).unwrap_err().to_string();
    assert!(told.starts_with("Invalid state list 'lost'. Valid states are: Reconciling,"), "{told}");
}
