import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.ByteArrayOutputStream;
import java.io.OutputStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;

/** DumpLogSegments over many files: counts what it lists, and keeps only the lines that no sound file gives. */
final class Segments {
    private static final int STRANGE_LINES_MAX = 50;
    private static final String[] SOUND = {
        "Dumping ", "Log starting offset: ", "baseOffset: ", "| offset: ", "offset: ", "timestamp: ", "producerId: ", "version: "};

    private Segments() {}

    static JsonNode run(JsonNode call) throws Exception {
        List<String> files = new ArrayList<>();
        call.get("files").forEach(file -> files.add(file.asText()));
        Lines lines = new Lines();
        List<String> arguments = List.of("--deep-iteration", "--files", String.join(",", files));
        int status = Tools.run("org.apache.kafka.tools.DumpLogSegments", arguments, "", lines, lines);
        lines.end();
        if (status != 0) {
            lines.strange.add("exit status " + status);
        }
        ObjectNode result = Peer.JSON.createObjectNode();
        result.put("batches", lines.batches);
        result.put("records", lines.records);
        result.put("emptied", lines.emptied);
        result.put("markers", lines.markers);
        result.put("aborted", lines.aborted);
        result.put("producers", lines.producers);
        ArrayNode strange = result.putArray("strange");
        lines.strange.forEach(strange::add);
        return result;
    }

    private static final class Lines extends OutputStream {
        private final ByteArrayOutputStream line = new ByteArrayOutputStream();
        private final List<String> strange = new ArrayList<>();
        private long batches;
        private long records;
        private long emptied;
        private long markers;
        private long aborted;
        private long producers;

        @Override
        public synchronized void write(int value) {
            if (value == '\n') {
                end();
            } else {
                line.write(value);
            }
        }

        @Override
        public synchronized void write(byte[] bytes, int from, int length) {
            for (int i = from; i < from + length; i++) {
                write(bytes[i]);
            }
        }

        synchronized void end() {
            String text = line.toString(StandardCharsets.UTF_8);
            line.reset();
            boolean sound = text.isEmpty() || text.endsWith(" is empty.");
            for (String start : SOUND) {
                sound |= text.startsWith(start);
            }
            if (text.startsWith("baseOffset: ")) {
                batches++;
                emptied += text.contains(" count: 0 ") ? 1 : 0;
            } else if (text.startsWith("| offset: ")) {
                records++;
                markers += text.contains(" endTxnMarker: ") ? 1 : 0;
            } else if (text.startsWith("version: ")) {
                aborted++;
            } else if (text.startsWith("producerId: ")) {
                producers++;
            }
            if ((!sound || text.contains("isvalid: false")) && strange.size() < STRANGE_LINES_MAX) {
                strange.add(text);
            }
        }
    }
}
