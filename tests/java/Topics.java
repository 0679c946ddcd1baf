import com.fasterxml.jackson.databind.JsonNode;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.RetriableException;

/** Many topics by one admin client. */
final class Topics {
    private static final int TOPICS_PER_REQUEST = 100;
    private static final long DEADLINE_MS = 240_000;

    private Topics() {}

    static void create(JsonNode call) throws Exception {
        int topics = call.get("topics").asInt();
        int partitions = call.get("partitions").asInt();
        try (Admin admin = Admin.create(Peer.properties(call.get("config")))) {
            for (int first = 0; first < topics; first += TOPICS_PER_REQUEST) {
                List<NewTopic> some = new ArrayList<>();
                for (int topic = first; topic < Math.min(topics, first + TOPICS_PER_REQUEST); topic++) {
                    some.add(new NewTopic("many-" + topic, partitions, (short) 1));
                }
                admin.createTopics(some).all().get();
            }
        }
        waitFor(call);
    }

    static void delete(JsonNode call) throws Exception {
        List<String> names = new ArrayList<>();
        for (int topic = 0; topic < call.get("topics").asInt(); topic++) {
            names.add("many-" + topic);
        }
        try (Admin admin = Admin.create(Peer.properties(call.get("config")))) {
            admin.deleteTopics(names).all().get();
        }
    }

    static void waitFor(JsonNode call) throws Exception {
        Map<TopicPartition, OffsetSpec> ends = new HashMap<>();
        for (int topic = 0; topic < call.get("topics").asInt(); topic++) {
            for (int partition = 0; partition < call.get("partitions").asInt(); partition++) {
                ends.put(new TopicPartition("many-" + topic, partition), OffsetSpec.latest());
            }
        }
        long deadline = System.currentTimeMillis() + DEADLINE_MS;
        try (Admin admin = Admin.create(Peer.properties(call.get("config")))) {
            while (true) {
                try {
                    admin.listOffsets(ends).all().get();
                    return;
                } catch (ExecutionException failure) {
                    if (!(failure.getCause() instanceof RetriableException) || System.currentTimeMillis() > deadline) {
                        throw failure;
                    }
                }
            }
        }
    }
}
