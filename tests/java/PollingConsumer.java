import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.Callable;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.FutureTask;
import org.apache.kafka.clients.consumer.CloseOptions;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.WakeupException;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/** A subscribed consumer with a thread of its own that polls until it is closed. */
final class PollingConsumer {
    private final KafkaConsumer<byte[], byte[]> consumer;
    private final Thread thread;
    private final ConcurrentLinkedQueue<FutureTask<?>> tasks = new ConcurrentLinkedQueue<>();
    private final List<ObjectNode> records = new ArrayList<>();
    private volatile Set<String> assignment = new TreeSet<>();
    private volatile boolean closing;
    private volatile boolean leaving;
    private volatile Throwable failure;

    PollingConsumer(JsonNode call) {
        consumer = new KafkaConsumer<>(
            Peer.properties(call.get("config")), new ByteArrayDeserializer(), new ByteArrayDeserializer());
        List<String> topics = new ArrayList<>();
        call.get("topics").forEach(topic -> topics.add(topic.asText()));
        consumer.subscribe(topics);
        thread = new Thread(this::pollUntilClosed, "consumer-" + call.get("name").asText());
        thread.setDaemon(true);
        thread.start();
    }

    private void pollUntilClosed() {
        try {
            while (!closing) {
                for (FutureTask<?> task = tasks.poll(); task != null; task = tasks.poll()) {
                    task.run();
                }
                try {
                    for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(100))) {
                        synchronized (records) {
                            records.add(describe(record));
                        }
                    }
                } catch (WakeupException woken) {
                    continue;
                }
                Set<String> now = new TreeSet<>();
                for (TopicPartition partition : consumer.assignment()) {
                    now.add(partition.toString());
                }
                assignment = now;
            }
        } catch (Throwable thrown) {
            failure = thrown;
        } finally {
            consumer.close(CloseOptions.timeout(Duration.ofSeconds(20)).withGroupMembershipOperation(
                leaving ? CloseOptions.GroupMembershipOperation.LEAVE_GROUP
                        : CloseOptions.GroupMembershipOperation.REMAIN_IN_GROUP));
        }
    }

    static ObjectNode describe(ConsumerRecord<byte[], byte[]> record) {
        ObjectNode described = Peer.JSON.createObjectNode();
        described.put("topic", record.topic());
        described.put("partition", record.partition());
        described.put("offset", record.offset());
        described.put("timestamp", record.timestamp());
        described.put("timestamp_type", record.timestampType().name);
        described.put("key", Peer.text(record.key()));
        described.put("value", Peer.text(record.value()));
        ObjectNode headers = described.putObject("headers");
        record.headers().forEach(header -> headers.put(header.key(), Peer.text(header.value())));
        return described;
    }

    JsonNode state() throws Exception {
        if (failure != null) {
            throw new Exception("the consumer ended", failure);
        }
        ObjectNode state = Peer.JSON.createObjectNode();
        ArrayNode assigned = state.putArray("assignment");
        assignment.forEach(assigned::add);
        ArrayNode seen = state.putArray("records");
        synchronized (records) {
            records.forEach(seen::add);
        }
        return state;
    }

    void commit() throws Exception {
        Callable<Void> commit = () -> {
            consumer.commitSync();
            return null;
        };
        FutureTask<Void> task = new FutureTask<>(commit);
        // Not woken for it: the commit may have begun by then, and would be what is woken.
        tasks.add(task);
        task.get();
    }

    JsonNode close(boolean leave) throws Exception {
        leaving = leave;
        closing = true;
        consumer.wakeup();
        thread.join();
        return state();
    }
}
