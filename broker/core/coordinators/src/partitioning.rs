//! Which partition of `__consumer_offsets` holds a group.

/// The partition of the group: Java's `String.hashCode` over UTF-16 units, made non-negative as Kafka's `Utils.abs`.
/// Zero partitions answer 0.
pub fn partition_for(group_id: &str, partitions: i32) -> i32 {
    let hash =
        group_id.encode_utf16().fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    let positive = if hash == i32::MIN { 0 } else { hash.abs() };
    if partitions <= 0 { 0 } else { positive % partitions }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_as_java_does() {
        // "polygenelubricants".hashCode() is Integer.MIN_VALUE; "Aa" and "BB" collide at 2112.
        assert_eq!(partition_for("polygenelubricants", 50), 0);
        assert_eq!(partition_for("Aa", 50), 12);
        assert_eq!(partition_for("BB", 50), 12);
        // U+1F600 is the pair d83d de00: 55357 * 31 + 56832 = 1772899.
        assert_eq!(partition_for("\u{1f600}", 50), 49);
        assert_eq!(partition_for("", 50), 0);
    }
}
