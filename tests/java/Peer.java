import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

/**
 * Apache Kafka's tools and Java clients in one JVM, driven by one JSON object a line: {"id":1,"op":"tool",...}.
 * Answers carry the id, and come in the order in which the calls end. Tests keep their logic; this only obeys.
 */
public final class Peer {
    static final ObjectMapper JSON = new ObjectMapper();
    private static final Map<String, PollingConsumer> CONSUMERS = new ConcurrentHashMap<>();

    private Peer() {}

    public static void main(String[] arguments) throws Exception {
        PrintStream answers = new PrintStream(new java.io.FileOutputStream(java.io.FileDescriptor.out), true, "UTF-8");
        // SLF4J remarks once, on standard error, that it logs nowhere: now, and not in the output of some tool.
        org.slf4j.LoggerFactory.getLogger(Peer.class);
        Tools.captureStreams();
        ExecutorService calls = Executors.newCachedThreadPool(task -> {
            Thread thread = new Thread(task);
            thread.setDaemon(true);
            return thread;
        });
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        Tools.captureInput();
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            JsonNode call = JSON.readTree(line);
            calls.submit(() -> answers.println(answer(call)));
        }
        Runtime.getRuntime().halt(0);
    }

    private static String answer(JsonNode call) {
        ObjectNode answer = JSON.createObjectNode();
        try {
            answer.set("result", perform(call.get("op").asText(), call));
        } catch (Throwable failure) {
            StringWriter trace = new StringWriter();
            failure.printStackTrace(new PrintWriter(trace));
            answer.put("error", trace.toString());
        }
        answer.set("id", call.get("id"));
        return answer.toString();
    }

    private static JsonNode perform(String operation, JsonNode call) throws Exception {
        switch (operation) {
            case "tool":
                return Tools.run(call);
            case "dump_segments":
                return Segments.run(call);
            case "small_files":
                return SmallFiles.run(call);
            case "produce":
                return Produce.run(call);
            case "consumer.open":
                CONSUMERS.put(call.get("name").asText(), new PollingConsumer(call));
                return JSON.createObjectNode();
            case "consumer.state":
                return CONSUMERS.get(call.get("name").asText()).state();
            case "consumer.commit":
                CONSUMERS.get(call.get("name").asText()).commit();
                return JSON.createObjectNode();
            case "consumer.close":
                return CONSUMERS.remove(call.get("name").asText()).close(call.get("leave").asBoolean());
            case "read":
                return Read.run(call);
            case "create_topics":
                Topics.create(call);
                return JSON.createObjectNode();
            case "delete_topics":
                Topics.delete(call);
                return JSON.createObjectNode();
            case "wait_for_topics":
                Topics.waitFor(call);
                return JSON.createObjectNode();
            case "offsets_for_times":
                return Read.offsetsForTimes(call);
            default:
                throw new IllegalArgumentException("no such operation: " + operation);
        }
    }

    static Properties properties(JsonNode config) {
        Properties properties = new Properties();
        config.fields().forEachRemaining(entry -> properties.put(entry.getKey(), entry.getValue().asText()));
        return properties;
    }

    static String text(byte[] bytes) {
        return bytes == null ? null : new String(bytes, StandardCharsets.UTF_8);
    }

    static byte[] bytes(JsonNode node) {
        return node == null || node.isNull() ? null : node.asText().getBytes(StandardCharsets.UTF_8);
    }

    static ArrayNode array() {
        return JSON.createArrayNode();
    }
}
