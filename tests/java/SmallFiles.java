import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.File;
import java.nio.file.Path;
import org.apache.kafka.metadata.properties.PropertiesUtils;
import org.apache.kafka.storage.internals.checkpoint.LeaderEpochCheckpointFile;
import org.apache.kafka.storage.internals.checkpoint.OffsetCheckpointFile;
import org.apache.kafka.storage.internals.checkpoint.PartitionMetadataFile;
import org.apache.kafka.storage.internals.log.LogDirFailureChannel;

/** What Kafka's own readers find in the small files of a log directory, and of one partition in it. */
final class SmallFiles {
    private static final String CHECKPOINT = "-offset-checkpoint";

    private SmallFiles() {}

    static JsonNode run(JsonNode call) throws Exception {
        Path directory = Path.of(call.get("directory").asText());
        Path partition = directory.resolve(call.get("partition").asText());
        LogDirFailureChannel failures = new LogDirFailureChannel(1);
        ObjectNode result = Peer.JSON.createObjectNode();
        for (File file : directory.toFile().listFiles((parent, name) -> name.endsWith(CHECKPOINT))) {
            ObjectNode offsets = result.putObject(file.getName());
            new OffsetCheckpointFile(file, failures).read().forEach((of, offset) -> offsets.put(of.toString(), offset));
        }
        File epochs = LeaderEpochCheckpointFile.newFile(partition.toFile());
        ObjectNode starts = result.putObject(epochs.getName());
        new LeaderEpochCheckpointFile(epochs, failures).read()
            .forEach(entry -> starts.put(String.valueOf(entry.epoch()), entry.startOffset()));
        PartitionMetadataFile metadata =
            new PartitionMetadataFile(PartitionMetadataFile.newFile(partition.toFile()), failures);
        result.put("topic_id", metadata.read().topicId().toString());
        String identity = directory.resolve("meta.properties").toString();
        result.put("node_id", PropertiesUtils.readPropertiesFile(identity).getProperty("node.id"));
        return result;
    }
}
