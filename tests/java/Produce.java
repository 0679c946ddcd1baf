import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** Sends records with one producer and tells where each landed, or the error class that it met. */
final class Produce {
    private Produce() {}

    static JsonNode run(JsonNode call) throws Exception {
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        String topic = call.get("topic").asText();
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(
                Peer.properties(call.get("config")), new ByteArraySerializer(), new ByteArraySerializer())) {
            for (JsonNode record : call.get("records")) {
                sent.add(producer.send(record(topic, record)));
            }
            producer.flush();
        }
        ArrayNode results = Peer.array();
        for (Future<RecordMetadata> future : sent) {
            ObjectNode result = results.addObject();
            try {
                RecordMetadata metadata = future.get();
                result.put("partition", metadata.partition());
                result.put("offset", metadata.offset());
                result.put("timestamp", metadata.timestamp());
            } catch (ExecutionException failure) {
                result.put("error", failure.getCause().getClass().getSimpleName());
                result.put("message", failure.getCause().getMessage());
            }
        }
        return results;
    }

    private static ProducerRecord<byte[], byte[]> record(String topic, JsonNode record) {
        ProducerRecord<byte[], byte[]> made = new ProducerRecord<>(
            topic,
            record.hasNonNull("partition") ? record.get("partition").asInt() : null,
            record.hasNonNull("timestamp") ? record.get("timestamp").asLong() : null,
            Peer.bytes(record.get("key")),
            Peer.bytes(record.get("value")));
        if (record.hasNonNull("headers")) {
            record.get("headers").fields().forEachRemaining(
                header -> made.headers().add(header.getKey(), Peer.bytes(header.getValue())));
        }
        return made;
    }
}
