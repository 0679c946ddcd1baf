/* The one client program that loads Firn and Apache Kafka in the same way, over librdkafka.
 *
 *   firn-rdkafka produce --count N --size BYTES     as fast as it goes; one JSON line of figures
 *   firn-rdkafka consume --count N                  all partitions from their start; one JSON line
 *   firn-rdkafka latency --rate N --seconds S       paced produce to consume; one JSON line of quantiles
 *   firn-rdkafka load [--keys N]                    numbered records until SIGTERM, which ends it once all are acknowledged; "A partition offset number" per ack
 *   firn-rdkafka dump [--from P:OFFSET,...]         "partition offset value" for every record there is now
 *   firn-rdkafka group --group NAME                 a member that reads and commits until killed; what it was told, a line each
 *
 * Common: --brokers HOST:PORT --topic NAME --partitions N, and -X key=value for any setting of librdkafka. */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <librdkafka/rdkafka.h>

enum { PARTITIONS_MAX = 4096, SETTINGS_MAX = 64, BATCH = 4096, REASON_BYTES = 512 };

static struct {
    const char *brokers, *topic, *from, *group;
    int partitions, size, rate, seconds, keys;
    int64_t count;
    const char *setting[SETTINGS_MAX];
    int settings;
} options = {.brokers = "127.0.0.1:9092", .topic = "bench", .partitions = 1, .size = 1024, .rate = 1000, .seconds = 10};

static int64_t delivered, failed, bytes_delivered;
static char first_failure[REASON_BYTES];

static void die(const char *what, const char *why) {
    fprintf(stderr, "firn-rdkafka: %s: %s\n", what, why);
    exit(1);
}

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static double cpu_seconds(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static void set(rd_kafka_conf_t *conf, const char *key, const char *value) {
    char reason[REASON_BYTES];
    if (rd_kafka_conf_set(conf, key, value, reason, sizeof reason) != RD_KAFKA_CONF_OK) die(key, reason);
}

/* A setting meant for the other kind of client is a warning of librdkafka, not an error: one list serves both. */
static rd_kafka_t *client(rd_kafka_type_t type, rd_kafka_conf_t *conf) {
    char reason[REASON_BYTES];
    set(conf, "bootstrap.servers", options.brokers);
    set(conf, "log_level", "3");
    for (int i = 0; i < options.settings; i++) {
        char *pair = strdup(options.setting[i]);
        char *value = pair ? strchr(pair, '=') : NULL;
        if (!value) die(options.setting[i], "expected key=value");
        *value++ = 0;
        set(conf, pair, value);
        free(pair);
    }
    rd_kafka_t *made = rd_kafka_new(type, conf, reason, sizeof reason);
    if (!made) die("new client", reason);
    return made;
}

/* Connections and leaders are known before a clock starts. */
static void wait_for_topic(rd_kafka_t *kafka) {
    for (int attempt = 0; attempt < 100; attempt++) {
        const struct rd_kafka_metadata *metadata;
        rd_kafka_topic_t *topic = rd_kafka_topic_new(kafka, options.topic, NULL);
        bool ready = rd_kafka_metadata(kafka, 0, topic, &metadata, 5000) == RD_KAFKA_RESP_ERR_NO_ERROR;
        if (ready) {
            ready = metadata->topic_cnt == 1 && metadata->topics[0].err == 0 &&
                    metadata->topics[0].partition_cnt >= options.partitions;
            rd_kafka_metadata_destroy(metadata);
        }
        rd_kafka_topic_destroy(topic);
        if (ready) return;
        usleep(50000);
    }
    die(options.topic, "the topic did not appear in the metadata");
}

static void on_delivery(rd_kafka_t *kafka, const rd_kafka_message_t *message, void *context) {
    (void)kafka, (void)context;
    if (message->err) {
        if (failed++ == 0) snprintf(first_failure, sizeof first_failure, "%s", rd_kafka_err2str(message->err));
    } else {
        delivered++;
        bytes_delivered += (int64_t)message->len;
    }
}

/* Words out of a small vocabulary. All records of a run have the same, so a batch compresses much further than real
   text: rows with a codec show what the codec costs, not what it saves. */
static void fill(char *payload, int size) {
    static const char *words[] = {"glacier ", "snow ", "firn ", "ice ", "melt ", "crevasse ", "moraine ", "cirque "};
    uint32_t state = 2463534242u;
    for (int at = 0; at < size;) {
        state ^= state << 13, state ^= state >> 17, state ^= state << 5;
        char piece[32];
        int length = snprintf(piece, sizeof piece, "%s%u", words[state & 7], state >> 20);
        for (int i = 0; i < length && at < size; i++) payload[at++] = piece[i];
    }
}

static int produce(void) {
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_conf_set_dr_msg_cb(conf, on_delivery);
    rd_kafka_t *kafka = client(RD_KAFKA_PRODUCER, conf);
    wait_for_topic(kafka);
    rd_kafka_topic_t *topic = rd_kafka_topic_new(kafka, options.topic, NULL);
    char *payload = malloc((size_t)options.size);
    if (!payload) die("payload", strerror(errno));
    fill(payload, options.size);

    double cpu_before = cpu_seconds();
    int64_t started = now_ns();
    for (int64_t i = 0; i < options.count; i++) {
        while (rd_kafka_produce(topic, RD_KAFKA_PARTITION_UA, 0, payload, (size_t)options.size, NULL, 0, NULL) == -1) {
            if (rd_kafka_last_error() != RD_KAFKA_RESP_ERR__QUEUE_FULL) die("produce", rd_kafka_err2str(rd_kafka_last_error()));
            rd_kafka_poll(kafka, 10);
        }
        if ((i & 1023) == 0) rd_kafka_poll(kafka, 0);
    }
    while (rd_kafka_outq_len(kafka) > 0) rd_kafka_poll(kafka, 100);
    double seconds = (double)(now_ns() - started) / 1e9;
    printf("{\"records\":%" PRId64 ",\"failed\":%" PRId64 ",\"failure\":\"%s\",\"bytes\":%" PRId64
           ",\"seconds\":%.6f,\"client_cpu_seconds\":%.6f}\n",
           delivered, failed, first_failure, bytes_delivered, seconds, cpu_seconds() - cpu_before);
    rd_kafka_topic_destroy(topic);
    rd_kafka_destroy(kafka);
    free(payload);
    return failed ? 1 : 0;
}

static rd_kafka_t *assigned_consumer(int64_t default_offset, const char *from) {
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    set(conf, "group.id", "firn-rdkafka");
    set(conf, "enable.auto.commit", "false");
    set(conf, "enable.partition.eof", "false");
    rd_kafka_t *kafka = client(RD_KAFKA_CONSUMER, conf);
    wait_for_topic(kafka);
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(options.partitions);
    for (int p = 0; p < options.partitions; p++)
        rd_kafka_topic_partition_list_add(list, options.topic, p)->offset = default_offset;
    for (const char *at = from; at && *at;) {
        int partition;
        int64_t offset;
        if (sscanf(at, "%d:%" SCNd64, &partition, &offset) != 2 || partition < 0 || partition >= options.partitions)
            die("--from", at);
        list->elems[partition].offset = offset;
        at = strchr(at, ',');
        if (at) at++;
    }
    rd_kafka_resp_err_t error = rd_kafka_assign(kafka, list);
    if (error) die("assign", rd_kafka_err2str(error));
    rd_kafka_topic_partition_list_destroy(list);
    return kafka;
}

/* The clock runs from the first records to the last, and counts the bytes that came in between: how long a client takes
 * to find its partitions is not what is asked here. */
static int consume(void) {
    rd_kafka_t *kafka = assigned_consumer(RD_KAFKA_OFFSET_BEGINNING, NULL);
    rd_kafka_queue_t *queue = rd_kafka_queue_get_consumer(kafka);
    static rd_kafka_message_t *batch[BATCH];
    int64_t records = 0, bytes = 0, counted = 0, started = now_ns(), last = started, first = 0;
    double cpu_before = cpu_seconds();
    while (records < options.count) {
        ssize_t got = rd_kafka_consume_batch_queue(queue, 1000, batch, BATCH);
        bool counts = first != 0;
        for (ssize_t i = 0; i < got; i++) {
            if (batch[i]->err && batch[i]->err != RD_KAFKA_RESP_ERR__PARTITION_EOF)
                fprintf(stderr, "firn-rdkafka: consume: %s\n", rd_kafka_message_errstr(batch[i]));
            else if (!batch[i]->err)
                records++, bytes += (int64_t)batch[i]->len, counted += counts ? (int64_t)batch[i]->len : 0;
            rd_kafka_message_destroy(batch[i]);
        }
        if (got > 0) last = now_ns();
        if (got > 0 && !first) first = last;
        if (now_ns() - last > 30000000000LL) die("consume", "no record for 30 seconds");
    }
    printf("{\"records\":%" PRId64 ",\"bytes\":%" PRId64 ",\"counted_bytes\":%" PRId64 ",\"seconds\":%.6f,"
           "\"first_record_seconds\":%.6f,\"client_cpu_seconds\":%.6f}\n",
           records, bytes, counted, (double)(last - first) / 1e9, (double)(first - started) / 1e9, cpu_seconds() - cpu_before);
    rd_kafka_queue_destroy(queue);
    rd_kafka_destroy(kafka);
    return 0;
}

static struct {
    rd_kafka_t *kafka;
    double *ms;
    int64_t wanted, got;
} probe;
static atomic_bool probing = true;

static void *receive(void *context) {
    (void)context;
    while (probing && probe.got < probe.wanted) {
        rd_kafka_message_t *message = rd_kafka_consumer_poll(probe.kafka, 100);
        if (!message) continue;
        int64_t sent;
        if (!message->err && message->len >= sizeof sent) {
            memcpy(&sent, message->payload, sizeof sent);
            if (sent > 0) probe.ms[probe.got++] = (double)(now_ns() - sent) / 1e6;
        }
        rd_kafka_message_destroy(message);
    }
    return NULL;
}

static int by_value(const void *left, const void *right) {
    double difference = *(const double *)left - *(const double *)right;
    return difference < 0 ? -1 : difference > 0;
}

/* A record's clock starts when it was due, so a stalled broker is charged for the records that had to wait. */
static int latency(void) {
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_conf_set_dr_msg_cb(conf, on_delivery);
    rd_kafka_t *kafka = client(RD_KAFKA_PRODUCER, conf);
    wait_for_topic(kafka);
    rd_kafka_topic_t *topic = rd_kafka_topic_new(kafka, options.topic, NULL);
    probe.kafka = assigned_consumer(RD_KAFKA_OFFSET_END, NULL);
    rd_kafka_poll_set_consumer(probe.kafka);
    probe.wanted = (int64_t)options.rate * options.seconds;
    probe.ms = calloc((size_t)probe.wanted, sizeof *probe.ms);
    char *payload = calloc(1, (size_t)options.size);
    if (!probe.ms || !payload || options.size < 8) die("latency", "no memory, or --size under 8");
    pthread_t receiver;
    pthread_create(&receiver, NULL, receive, NULL);
    int64_t warm_until = now_ns() + 2000000000LL;
    for (int64_t zero = 0; now_ns() < warm_until; usleep(2000)) {
        memcpy(payload, &zero, sizeof zero);
        rd_kafka_produce(topic, RD_KAFKA_PARTITION_UA, RD_KAFKA_MSG_F_COPY, payload, (size_t)options.size, NULL, 0, NULL);
        rd_kafka_poll(kafka, 0);
    }
    double cpu_before = cpu_seconds();
    int64_t started = now_ns(), gap = 1000000000LL / options.rate;
    for (int64_t i = 0; i < probe.wanted; i++) {
        int64_t due = started + i * gap;
        while (now_ns() < due) {
            struct timespec until = {due / 1000000000, due % 1000000000};
            rd_kafka_poll(kafka, 0);
            clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
        }
        memcpy(payload, &due, sizeof due);
        while (rd_kafka_produce(topic, RD_KAFKA_PARTITION_UA, RD_KAFKA_MSG_F_COPY, payload, (size_t)options.size, NULL, 0, NULL) == -1)
            rd_kafka_poll(kafka, 1);
    }
    while (rd_kafka_outq_len(kafka) > 0) rd_kafka_poll(kafka, 100);
    for (int64_t give_up = now_ns() + 30000000000LL; probe.got < probe.wanted && now_ns() < give_up;) usleep(10000);
    double seconds = (double)(now_ns() - started) / 1e9;
    probing = false;
    pthread_join(receiver, NULL);
    if (probe.got == 0) die("latency", "no record came back");
    qsort(probe.ms, (size_t)probe.got, sizeof *probe.ms, by_value);
    double *ms = probe.ms;
    int64_t n = probe.got;
    printf("{\"records\":%" PRId64 ",\"lost\":%" PRId64 ",\"seconds\":%.6f,\"p50_ms\":%.4f,\"p90_ms\":%.4f,\"p99_ms\":%.4f,"
           "\"p999_ms\":%.4f,\"max_ms\":%.4f,\"client_cpu_seconds\":%.6f}\n",
           n, probe.wanted - n, seconds, ms[n / 2], ms[n * 9 / 10], ms[n * 99 / 100], ms[n * 999 / 1000], ms[n - 1],
           cpu_seconds() - cpu_before);
    rd_kafka_destroy(probe.kafka);
    rd_kafka_topic_destroy(topic);
    rd_kafka_destroy(kafka);
    return probe.wanted == n ? 0 : 1;
}

static volatile sig_atomic_t ended;

static void on_term(int signal) {
    (void)signal;
    ended = 1;
}

static void on_load_delivery(rd_kafka_t *kafka, const rd_kafka_message_t *message, void *context) {
    (void)kafka, (void)context;
    if (message->err)
        printf("F %d %s %s\n", message->partition, (const char *)message->payload, rd_kafka_err2name(message->err));
    else
        printf("A %d %" PRId64 " %s\n", message->partition, message->offset, (const char *)message->payload);
}

/* Every record is its partition's next number, padded to --size, so that order and doubles can be seen. Of N keys it has
 * the one that its number modulo N is. */
static int load(void) {
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_conf_set_dr_msg_cb(conf, on_load_delivery);
    rd_kafka_t *kafka = client(RD_KAFKA_PRODUCER, conf);
    static int64_t next[PARTITIONS_MAX];
    static char outbuf[1 << 16];
    setvbuf(stdout, outbuf, _IOFBF, sizeof outbuf);
    signal(SIGTERM, on_term);
    wait_for_topic(kafka);
    rd_kafka_topic_t *topic = rd_kafka_topic_new(kafka, options.topic, NULL);
    int64_t started = now_ns(), stop = options.count ? options.count : INT64_MAX;
    for (int64_t i = 0; i < stop && !ended; i++) {
        int partition = (int)(i % options.partitions), padding = options.size;
        char payload[1 << 16];
        int length = snprintf(payload, sizeof payload, "%d.%d.%" PRId64, (int)getpid(), partition, next[partition]);
        for (; length < padding && length < (int)sizeof payload - 1; length++) payload[length] = '.';
        payload[length] = 0;
        char key[32];
        int key_length = options.keys ? snprintf(key, sizeof key, "%" PRId64, next[partition] % options.keys) : 0;
        while (rd_kafka_produce(topic, partition, RD_KAFKA_MSG_F_COPY, payload, (size_t)length + 1,
                                options.keys ? key : NULL, (size_t)key_length, NULL) == -1) {
            rd_kafka_poll(kafka, 10);
            fflush(stdout);
        }
        next[partition]++;
        while (options.rate && !ended && (now_ns() - started) * options.rate / 1000000000 < i) {
            rd_kafka_poll(kafka, 1);
            fflush(stdout);
        }
    }
    while (rd_kafka_outq_len(kafka) > 0) rd_kafka_poll(kafka, 100);
    fflush(stdout);
    rd_kafka_topic_destroy(topic);
    rd_kafka_destroy(kafka);
    return 0;
}

/* A broker that has just started may not lead its partitions yet. */
static void watermarks(rd_kafka_t *kafka, int partition, int64_t *low, int64_t *high) {
    rd_kafka_resp_err_t error = RD_KAFKA_RESP_ERR_NO_ERROR;
    for (int64_t give_up = now_ns() + 30000000000LL; now_ns() < give_up; usleep(20000)) {
        error = rd_kafka_query_watermark_offsets(kafka, options.topic, partition, low, high, 5000);
        if (!error) return;
    }
    die("watermarks", rd_kafka_err2str(error));
}

static int dump(void) {
    rd_kafka_t *kafka = assigned_consumer(RD_KAFKA_OFFSET_BEGINNING, options.from);
    static int64_t end[PARTITIONS_MAX];
    static bool done[PARTITIONS_MAX];
    int open = 0;
    for (int p = 0; p < options.partitions; p++) {
        int64_t low;
        watermarks(kafka, p, &low, &end[p]);
        done[p] = end[p] == low;
        const char *at = options.from;
        for (int64_t offset, partition; at && sscanf(at, "%" SCNd64 ":%" SCNd64, &partition, &offset) == 2;) {
            if (partition == p && offset >= end[p]) done[p] = true;
            at = strchr(at, ',');
            if (at) at++;
        }
        open += !done[p];
        printf("E %d %" PRId64 " %" PRId64 "\n", p, low, end[p]);
    }
    for (int64_t give_up = now_ns() + 60000000000LL; open > 0;) {
        if (now_ns() > give_up) die("dump", "the end was not reached in 60 seconds");
        rd_kafka_message_t *message = rd_kafka_consumer_poll(kafka, 200);
        if (!message) continue;
        if (message->err) {
            fprintf(stderr, "firn-rdkafka: dump: %s\n", rd_kafka_message_errstr(message));
        } else {
            printf("R %d %" PRId64 " %.*s\n", message->partition, message->offset, (int)message->len, (const char *)message->payload);
            if (message->offset + 1 >= end[message->partition] && !done[message->partition]) done[message->partition] = true, open--;
        }
        rd_kafka_message_destroy(message);
    }
    rd_kafka_destroy(kafka);
    return 0;
}

/* Where a member of a group stands; -1 where it has nothing to commit. */
static int64_t position[PARTITIONS_MAX];

/* "C partition offset begun ended" for each that the coordinator keeps, "T ..." where that is not known. */
static void commit(rd_kafka_t *kafka) {
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(options.partitions);
    for (int p = 0; p < options.partitions; p++)
        if (position[p] >= 0) rd_kafka_topic_partition_list_add(list, options.topic, p)->offset = position[p];
    if (list->cnt > 0) {
        int64_t begun = now_ns();
        rd_kafka_resp_err_t error = rd_kafka_commit(kafka, list, 0);
        for (int i = 0; i < list->cnt; i++) {
            rd_kafka_topic_partition_t *one = &list->elems[i];
            bool kept = !error && !one->err;
            printf("%s %d %" PRId64 " %" PRId64 " %" PRId64 "\n", kept ? "C" : "T", one->partition, one->offset, begun, now_ns());
            if (kept && position[one->partition] == one->offset) position[one->partition] = -1;
        }
        fflush(stdout);
    }
    rd_kafka_topic_partition_list_destroy(list);
}

/* "O partition offset begun ended" is what the coordinator says where the group was, -1 for nowhere: there the member begins. */
static void on_rebalance(rd_kafka_t *kafka, rd_kafka_resp_err_t event, rd_kafka_topic_partition_list_t *list, void *context) {
    (void)context;
    if (event != RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS) {
        if (!rd_kafka_assignment_lost(kafka)) commit(kafka);
        for (int p = 0; p < options.partitions; p++) position[p] = -1;
        rd_kafka_assign(kafka, NULL);
        return;
    }
    int64_t begun = now_ns();
    rd_kafka_resp_err_t error = RD_KAFKA_RESP_ERR_NO_ERROR;
    for (int64_t give_up = begun + 120000000000LL; now_ns() < give_up; usleep(50000)) {
        begun = now_ns();
        error = rd_kafka_committed(kafka, list, 5000);
        for (int i = 0; i < list->cnt && !error; i++) error = list->elems[i].err;
        if (!error || rd_kafka_assignment_lost(kafka)) break;
    }
    /* Out of the group meanwhile, it is told so next. */
    if (error && !rd_kafka_assignment_lost(kafka)) die("committed", rd_kafka_err2str(error));
    for (int i = 0; i < list->cnt && !error; i++) {
        rd_kafka_topic_partition_t *one = &list->elems[i];
        printf("O %d %" PRId64 " %" PRId64 " %" PRId64 "\n", one->partition, one->offset < 0 ? -1 : one->offset, begun, now_ns());
        if (one->offset < 0) one->offset = RD_KAFKA_OFFSET_BEGINNING;
    }
    fflush(stdout);
    rd_kafka_assign(kafka, error ? NULL : list);
}

/* "R partition offset value" for each record, and "X partition reason" where it finds nothing at its position. */
_Noreturn static void group(void) {
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    set(conf, "group.id", options.group);
    set(conf, "enable.auto.commit", "false");
    set(conf, "auto.offset.reset", "error");
    rd_kafka_conf_set_rebalance_cb(conf, on_rebalance);
    rd_kafka_t *kafka = client(RD_KAFKA_CONSUMER, conf);
    static char outbuf[1 << 16];
    setvbuf(stdout, outbuf, _IOFBF, sizeof outbuf);
    rd_kafka_poll_set_consumer(kafka);
    for (int p = 0; p < options.partitions; p++) position[p] = -1;
    rd_kafka_topic_partition_list_t *topics = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(topics, options.topic, RD_KAFKA_PARTITION_UA);
    rd_kafka_resp_err_t error = rd_kafka_subscribe(kafka, topics);
    if (error) die("subscribe", rd_kafka_err2str(error));
    for (int64_t due = now_ns();;) {
        rd_kafka_message_t *message = rd_kafka_consumer_poll(kafka, 100);
        if (message && !message->err) {
            printf("R %d %" PRId64 " %.*s\n", message->partition, message->offset, (int)message->len, (const char *)message->payload);
            position[message->partition] = message->offset + 1;
        } else if (message && message->err == RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET) {
            printf("X %d %s\n", message->partition, rd_kafka_message_errstr(message));
        }
        if (message) rd_kafka_message_destroy(message);
        if (now_ns() < due) continue;
        commit(kafka);
        fflush(stdout);
        due = now_ns() + 200000000;
    }
}

int main(int count, char **argument) {
    if (count < 2) die("usage", "produce|consume|latency|load|dump|group OPTIONS");
    for (int i = 2; i < count; i++) {
        const char *key = argument[i], *value = ++i < count ? argument[i] : NULL;
        if (!value) die(key, "expected a value");
        if (!strcmp(key, "--brokers")) options.brokers = value;
        else if (!strcmp(key, "--topic")) options.topic = value;
        else if (!strcmp(key, "--from")) options.from = value;
        else if (!strcmp(key, "--group")) options.group = value;
        else if (!strcmp(key, "--partitions")) options.partitions = atoi(value);
        else if (!strcmp(key, "--size")) options.size = atoi(value);
        else if (!strcmp(key, "--rate")) options.rate = atoi(value);
        else if (!strcmp(key, "--keys")) options.keys = atoi(value);
        else if (!strcmp(key, "--seconds")) options.seconds = atoi(value);
        else if (!strcmp(key, "--count")) options.count = atoll(value);
        else if (!strcmp(key, "-X") && options.settings < SETTINGS_MAX) options.setting[options.settings++] = value;
        else die(key, "no such option");
    }
    if (options.partitions < 1 || options.partitions > PARTITIONS_MAX) die("--partitions", "1 to 4096");
    if (!strcmp(argument[1], "produce")) return produce();
    if (!strcmp(argument[1], "consume")) return consume();
    if (!strcmp(argument[1], "latency")) return latency();
    if (!strcmp(argument[1], "load")) return load();
    if (!strcmp(argument[1], "dump")) return dump();
    if (!strcmp(argument[1], "group") && options.group) group();
    die(argument[1], "no such command");
}
