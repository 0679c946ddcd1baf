//! What a client may do with a resource, for the replies that say so (KIP-430). Nobody is denied anything yet: as in a
//! Kafka without an authorizer, it is every operation that the kind of resource has.

/// Operations as bits, each at the place that its number in Kafka's `AclOperation` says.
const READ: i32 = 1 << 3;
const WRITE: i32 = 1 << 4;
const CREATE: i32 = 1 << 5;
const DELETE: i32 = 1 << 6;
const ALTER: i32 = 1 << 7;
const DESCRIBE: i32 = 1 << 8;
const CLUSTER_ACTION: i32 = 1 << 9;
const DESCRIBE_CONFIGS: i32 = 1 << 10;
const ALTER_CONFIGS: i32 = 1 << 11;
const IDEMPOTENT_WRITE: i32 = 1 << 12;

/// "Nobody asked."
const NOT_ASKED: i32 = i32::MIN;

/// A kind of resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    Cluster,
    Topic,
    Group,
}

/// The operations on a resource, if the client asked for them.
pub fn operations(resource: Resource, asked: bool) -> i32 {
    if !asked {
        return NOT_ASKED;
    }
    let configs = DESCRIBE_CONFIGS | ALTER_CONFIGS;
    match resource {
        Resource::Cluster => CREATE | CLUSTER_ACTION | configs | IDEMPOTENT_WRITE | ALTER | DESCRIBE,
        Resource::Topic => READ | WRITE | CREATE | DESCRIBE | DELETE | ALTER | configs,
        Resource::Group => READ | DESCRIBE | DELETE | configs,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_those_of_a_kafka_without_an_authorizer() {
        let all = [Resource::Cluster, Resource::Topic, Resource::Group].map(|one| operations(one, true));
        assert_eq!(all, [8096, 3576, 3400]);
        assert_eq!(operations(Resource::Group, false), i32::MIN);
    }
}
