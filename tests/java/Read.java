import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndTimestamp;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/** Reads assigned partitions from a given offset, or from the start, to the end that they had when the read began. */
final class Read {
    private Read() {}

    static JsonNode run(JsonNode call) {
        try (KafkaConsumer<byte[], byte[]> consumer = open(call)) {
            List<TopicPartition> partitions = new ArrayList<>();
            String topic = call.get("topic").asText();
            consumer.partitionsFor(topic).forEach(info -> partitions.add(new TopicPartition(topic, info.partition())));
            consumer.assign(partitions);
            if (call.hasNonNull("from")) {
                partitions.forEach(partition -> consumer.seek(partition, call.get("from").asLong()));
            } else {
                consumer.seekToBeginning(partitions);
            }
            Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
            boolean brief = call.hasNonNull("brief") && call.get("brief").asBoolean();
            long deadline = System.nanoTime() + call.get("timeout_ms").asLong() * 1_000_000L;
            ArrayNode records = Peer.array();
            while (partitions.stream().anyMatch(partition -> consumer.position(partition) < ends.get(partition))) {
                if (System.nanoTime() > deadline) {
                    throw new IllegalStateException("read " + records.size() + " records before the deadline; ends " + ends);
                }
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(200))) {
                    if (brief) {
                        ObjectNode entry = records.addObject();
                        entry.put("partition", record.partition());
                        entry.put("offset", record.offset());
                        entry.put("key", Peer.text(record.key()));
                    } else {
                        records.add(PollingConsumer.describe(record));
                    }
                }
            }
            return records;
        }
    }

    static JsonNode offsetsForTimes(JsonNode call) {
        try (KafkaConsumer<byte[], byte[]> consumer = open(call)) {
            ArrayNode found = Peer.array();
            TopicPartition partition = new TopicPartition(call.get("topic").asText(), call.get("partition").asInt());
            for (JsonNode timestamp : call.get("timestamps")) {
                Map<TopicPartition, Long> wanted = new HashMap<>();
                wanted.put(partition, timestamp.asLong());
                OffsetAndTimestamp offset = consumer.offsetsForTimes(wanted).get(partition);
                ObjectNode entry = found.addObject();
                if (offset != null) {
                    entry.put("offset", offset.offset());
                    entry.put("timestamp", offset.timestamp());
                }
            }
            return found;
        }
    }

    private static KafkaConsumer<byte[], byte[]> open(JsonNode call) {
        return new KafkaConsumer<>(
            Peer.properties(call.get("config")), new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }
}
