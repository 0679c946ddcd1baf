//! Who reads which partitions: Kafka's `RangeAssignor`, which gives each member of a topic one contiguous range.

use std::collections::BTreeMap;

use super::protocol::Assignment;

/// What the leader of a generation knows of one member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subscriber {
    pub(crate) id: String,
    /// `group.instance.id` of a static member.
    pub(crate) instance: Option<String>,
    pub(crate) topics: Vec<String>,
}

/// The partitions of each member, by its id. Members of a topic are taken in the order of their instance ids, then of
/// their member ids, and the first ones get a partition more where the division leaves a remainder.
pub(crate) fn assign(
    members: &[Subscriber],
    partitions: &BTreeMap<String, i32>,
) -> BTreeMap<String, Assignment> {
    let mut ordered: Vec<&Subscriber> = members.iter().collect();
    ordered.sort_by_key(|member| (member.instance.is_none(), &member.instance, &member.id));
    let mut assigned: BTreeMap<String, Assignment> =
        members.iter().map(|member| (member.id.clone(), Assignment::new())).collect();
    for (topic, count) in partitions {
        let readers: Vec<&&Subscriber> =
            ordered.iter().filter(|member| member.topics.contains(topic)).collect();
        let readers_count = i32::try_from(readers.len()).unwrap_or(i32::MAX).max(1);
        let (each, extra) = (count / readers_count, count % readers_count);
        let mut next = 0;
        for (place, reader) in (0..).zip(readers) {
            let end = next + each + i32::from(place < extra);
            if next < end
                && let Some(held) = assigned.get_mut(&reader.id)
            {
                held.insert(topic.clone(), (next..end).collect());
            }
            next = end;
        }
    }
    assigned
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: &str, topics: &[&str]) -> Subscriber {
        let topics = topics.iter().map(|topic| (*topic).to_owned()).collect();
        Subscriber { id: id.to_owned(), instance: None, topics }
    }

    fn told(assigned: &BTreeMap<String, Assignment>, id: &str) -> String {
        let topics = assigned.get(id).unwrap().iter();
        topics.map(|(topic, partitions)| format!("{topic}{partitions:?}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_first_members_get_what_the_division_leaves() {
        let partitions = BTreeMap::from([("t".to_owned(), 13), ("u".to_owned(), 2)]);
        let members = [member("c", &["t", "u"]), member("a", &["t", "u"]), member("b", &["t"])];
        let assigned = assign(&members, &partitions);
        assert_eq!(told(&assigned, "a"), "t[0, 1, 2, 3, 4] u[0]");
        assert_eq!(told(&assigned, "b"), "t[5, 6, 7, 8]");
        assert_eq!(told(&assigned, "c"), "t[9, 10, 11, 12] u[1]");
    }

    #[test]
    fn members_beyond_the_partitions_idle_and_unknown_topics_have_none() {
        let partitions = BTreeMap::from([("t".to_owned(), 1), ("gone".to_owned(), 0)]);
        let members = [member("a", &["t", "gone"]), member("b", &["t"]), member("c", &["other"])];
        let assigned = assign(&members, &partitions);
        assert_eq!(told(&assigned, "a"), "t[0]");
        assert_eq!((told(&assigned, "b"), told(&assigned, "c")), (String::new(), String::new()));
    }

    #[test]
    fn static_members_come_first_and_by_their_instance() {
        let partitions = BTreeMap::from([("t".to_owned(), 3)]);
        let fixed = |id: &str, instance: &str| Subscriber {
            instance: Some(instance.to_owned()),
            ..member(id, &["t"])
        };
        let members = [member("a", &["t"]), fixed("y", "2"), fixed("z", "1")];
        let assigned = assign(&members, &partitions);
        assert_eq!(told(&assigned, "z"), "t[0]");
        assert_eq!(told(&assigned, "y"), "t[1]");
        assert_eq!(told(&assigned, "a"), "t[2]");
    }

    #[test]
    fn no_partition_is_left_out_or_given_twice() {
        for readers in 1..9 {
            for count in 0..20 {
                let members: Vec<_> = (0..readers).map(|n| member(&format!("m{n}"), &["t"])).collect();
                let assigned = assign(&members, &BTreeMap::from([("t".to_owned(), count)]));
                let mut all: Vec<i32> =
                    assigned.values().flat_map(|held| held.values().flatten()).copied().collect();
                all.sort_unstable();
                assert_eq!(all, (0..count).collect::<Vec<_>>());
            }
        }
    }
}
