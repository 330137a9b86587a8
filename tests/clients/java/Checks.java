import static org.apache.kafka.clients.admin.AlterConfigOp.OpType.SET;

import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.RecordTooLargeException;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * The Java client against a broker: its producer, consumer and admin.
 *
 * <p>Prints {@code ok name} or {@code FAIL name: why} per check, as the other clients do. Called as {@code Checks
 * HOST:PORT}, or {@code Checks HOST:PORT member TOPIC GROUP COUNT} to be a group member that somebody kills.
 */
public final class Checks {
    private static final int STEP_SECONDS = 20;
    private static final int CHECK_SECONDS = 45;
    private static final int MIB = 1 << 20;
    private static final int ADD_PARTITIONS_TO_TXN = 24;
    private static final long START_MS = 1_700_000_000_000L;

    private final String address;
    private final Admin admin;
    private boolean failed = false;

    private Checks(String address) {
        this.address = address;
        this.admin = Admin.create(Map.of("bootstrap.servers", address));
    }

    public static void main(String[] arguments) throws Exception {
        Checks checks = new Checks(arguments[0]);
        if (arguments.length == 5) {
            checks.beMember(arguments[2], arguments[3], Integer.parseInt(arguments[4]));
        }
        checks.runAll();
        // Threads of a failed check may never end.
        Runtime.getRuntime().halt(checks.failed ? 1 : 0);
    }

    private void runAll() {
        check("create topic, metadata", this::createTopic);
        for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            check("compression " + codec, () -> compression(codec));
        }
        check("idempotent producer", this::idempotent);
        check("transactions: committed seen, aborted not", this::transactions);
        check("records of 1 MiB", this::largeRecords);
        check("a record above the topic's limit is refused", this::tooLarge);
        check("keys, values, headers, timestamps", this::shapes);
        check("beginning, seek, watermarks", this::seek);
        check("offsets for times", this::offsetsForTimes);
        for (String assignor : List.of("Range", "RoundRobin", "Sticky", "CooperativeSticky")) {
            check("two members, " + assignor, () -> twoMembers(assignor));
        }
        check("another member goes on after one is killed", this::takeOver);
        check("static member keeps its partitions", this::staticMember);
        check("list, describe, delete groups", this::groups);
        check("add partitions", this::addPartitions);
        check("describe and alter configs", this::configs);
        check("list offsets: earliest, latest, timestamp, max timestamp", this::listOffsets);
        check("delete records", this::deleteRecords);
        check("delete topic", this::deleteTopic);
    }

    // ---- checks ----

    private void createTopic() throws Exception {
        String topic = newTopic(3, Map.of());
        var described = admin.describeTopics(List.of(topic)).topicNameValues().get(topic).get();
        expect("partitions", described.partitions().size(), 3);
        expect("listed", admin.listTopics().names().get().contains(topic), true);
        var cluster = admin.describeCluster();
        expect("has an id", cluster.clusterId().get() != null, true);
        expect("controller is a node", cluster.nodes().get().contains(cluster.controller().get()), true);
    }

    private void compression(String codec) throws Exception {
        String topic = newTopic(1, Map.of());
        List<ProducerRecord<byte[], byte[]>> sent = new ArrayList<>();
        for (int n = 0; n < 100; n++) {
            sent.add(record(topic, (codec + " " + n + " ").repeat(50)));
        }
        expect("offsets", produce(sent, Map.of("compression.type", codec, "linger.ms", 20)), upTo(100));
        expect("values", valuesOf(read(topic, 100, 0, Map.of())), sent.stream().map(r -> text(r.value())).toList());
    }

    private void idempotent() throws Exception {
        String topic = newTopic(1, Map.of());
        var settings = Map.<String, Object>of("enable.idempotence", true, "batch.size", 200, "linger.ms", 0);
        expect("offsets", produce(numbered(topic, 1000), settings), upTo(1000));
        List<String> values = numbered(topic, 1000).stream().map(r -> text(r.value())).toList();
        expect("values", valuesOf(read(topic, 1000, 0, Map.of())), values);
    }

    private void transactions() throws Exception {
        needsApi(ADD_PARTITIONS_TO_TXN);
        String topic = newTopic(1, Map.of());
        try (var producer = producer(Map.of("transactional.id", unique("transaction")))) {
            producer.initTransactions();
            for (String value : List.of("one", "two", "three")) {
                producer.beginTransaction();
                producer.send(record(topic, value));
                producer.flush();
                if (value.equals("two")) {
                    producer.abortTransaction();
                } else {
                    producer.commitTransaction();
                }
            }
        }
        var found = read(topic, 2, 0, Map.of("isolation.level", "read_committed"));
        expect("values", valuesOf(found), List.of("one", "three"));
    }

    private void largeRecords() throws Exception {
        String topic = newTopic(1, Map.of("max.message.bytes", String.valueOf(2 * MIB)));
        List<ProducerRecord<byte[], byte[]>> sent = new ArrayList<>();
        for (int n = 0; n < 3; n++) {
            byte[] value = new byte[MIB];
            Arrays.fill(value, (byte) n);
            sent.add(new ProducerRecord<>(topic, 0, null, value));
        }
        expect("offsets", produce(sent, Map.of("max.request.size", 2 * MIB)), upTo(3));
        for (var found : read(topic, 3, 0, Map.of())) {
            expect("same bytes", Arrays.equals(found.value(), sent.get((int) found.offset()).value()), true);
        }
    }

    private void tooLarge() throws Exception {
        String topic = newTopic(1, Map.of());
        try {
            produce(List.of(record(topic, "x".repeat(MIB))), Map.of("max.request.size", 2 * MIB));
        } catch (ExecutionException refused) {
            expect("error", refused.getCause().getClass(), RecordTooLargeException.class);
            return;
        }
        throw new AssertionError("it was taken");
    }

    private void shapes() throws Exception {
        String topic = newTopic(1, Map.of());
        var headers = List.<org.apache.kafka.common.header.Header>of(
                new RecordHeader("twice", bytes("one")), new RecordHeader("twice", bytes("two")),
                new RecordHeader("empty", new byte[0]), new RecordHeader("null", (byte[]) null));
        List<ProducerRecord<byte[], byte[]>> sent = List.of(
                new ProducerRecord<>(topic, 0, START_MS, bytes("key"), bytes("value")),
                new ProducerRecord<>(topic, 0, START_MS + 1, null, bytes("no key")),
                new ProducerRecord<>(topic, 0, START_MS + 2, bytes("tombstone"), (byte[]) null),
                new ProducerRecord<>(topic, 0, START_MS + 3, new byte[0], new byte[0]),
                new ProducerRecord<>(topic, 0, START_MS + 4, new byte[] {0, -1, 10}, bytes("v"), headers));
        produce(sent, Map.of());
        var found = read(topic, sent.size(), 0, Map.of());
        for (int n = 0; n < sent.size(); n++) {
            expect("key " + n, Arrays.equals(found.get(n).key(), sent.get(n).key()), true);
            expect("value " + n, Arrays.equals(found.get(n).value(), sent.get(n).value()), true);
            expect("timestamp " + n, found.get(n).timestamp(), sent.get(n).timestamp());
            expect("headers " + n, found.get(n).headers().toArray(), sent.get(n).headers().toArray());
        }
    }

    private void seek() throws Exception {
        String topic = newTopic(1, Map.of());
        produce(numbered(topic, 100), Map.of());
        TopicPartition partition = new TopicPartition(topic, 0);
        try (var reader = consumer(Map.of())) {
            reader.assign(List.of(partition));
            reader.seekToBeginning(List.of(partition));
            expect("first", take(reader, 1).get(0).offset(), 0L);
            for (long target : new long[] {90, 3, 42}) {
                reader.seek(partition, target);
                expect("offset", take(reader, 1).get(0).offset(), target);
            }
            expect("beginning", reader.beginningOffsets(List.of(partition)), Map.of(partition, 0L));
            expect("end", reader.endOffsets(List.of(partition)), Map.of(partition, 100L));
        }
    }

    private void offsetsForTimes() throws Exception {
        String topic = newTopic(1, Map.of());
        for (int n = 0; n < 10; n++) {
            produce(List.of(new ProducerRecord<>(topic, 0, START_MS + n * 1000L, null, bytes("x"))), Map.of());
        }
        TopicPartition partition = new TopicPartition(topic, 0);
        try (var reader = consumer(Map.of())) {
            expect("at the first", reader.offsetsForTimes(Map.of(partition, START_MS)).get(partition).offset(), 0L);
            expect("between", reader.offsetsForTimes(Map.of(partition, START_MS + 3001)).get(partition).offset(), 4L);
            expect("after all", reader.offsetsForTimes(Map.of(partition, START_MS + 9001)).get(partition), null);
        }
    }

    private void twoMembers(String assignor) throws Exception {
        String topic = newTopic(4, Map.of());
        Map<String, Object> settings = new HashMap<>();
        settings.put("group.id", unique("group"));
        settings.put("partition.assignment.strategy", "org.apache.kafka.clients.consumer." + assignor + "Assignor");
        try (var second = consumer(settings)) {
            try (var first = consumer(settings)) {
                first.subscribe(List.of(topic));
                until("one has all", () -> share(first) == 4);
                second.subscribe(List.of(topic));
                until("each has half", () -> share(first) == 2 & share(second) == 2);
            }
            until("the other has all", () -> share(second) == 4);
        }
    }

    private void takeOver() throws Exception {
        String topic = newTopic(1, Map.of());
        String group = unique("group");
        produce(numbered(topic, 10), Map.of());
        memberCommitsAndDies(topic, group, 4);
        try (var second = consumer(Map.of("group.id", group))) {
            second.subscribe(List.of(topic));
            expect("first offset of the second member", take(second, 6).get(0).offset(), 4L);
        }
    }

    private void staticMember() throws Exception {
        String topic = newTopic(4, Map.of());
        String group = unique("group");
        try (var one = consumer(Map.of("group.id", group, "group.instance.id", "one"))) {
            one.subscribe(List.of(topic));
            Set<TopicPartition> held;
            try (var two = consumer(Map.of("group.id", group, "group.instance.id", "two"))) {
                two.subscribe(List.of(topic));
                until("each has half", () -> share(one) == 2 & share(two) == 2);
                held = two.assignment();
            }
            try (var two = consumer(Map.of("group.id", group, "group.instance.id", "two"))) {
                two.subscribe(List.of(topic));
                until("it is back", () -> share(one) == 2 & share(two) == 2);
                expect("partitions", two.assignment(), held);
            }
        }
    }

    private void groups() throws Exception {
        String topic = newTopic(1, Map.of());
        String group = unique("group");
        produce(numbered(topic, 5), Map.of());
        TopicPartition partition = new TopicPartition(topic, 0);
        try (var member = consumer(Map.of("group.id", group, "max.poll.records", 3))) {
            member.subscribe(List.of(topic));
            take(member, 3);
            member.commitSync();
            expect("listed", listedGroups().contains(group), true);
            var described = admin.describeConsumerGroups(List.of(group)).describedGroups().get(group).get();
            expect("state", described.groupState(), GroupState.STABLE);
            var assigned = described.members().iterator().next().assignment().topicPartitions();
            expect("assigned", assigned, Set.of(partition));
            expect("committed", committed(group, partition), 3L);
        }
        until("the group is empty", () -> admin.describeConsumerGroups(List.of(group)).describedGroups().get(group).get()
                .groupState() == GroupState.EMPTY);
        admin.alterConsumerGroupOffsets(group, Map.of(partition, new OffsetAndMetadata(1))).all().get();
        expect("committed", committed(group, partition), 1L);
        admin.deleteConsumerGroups(List.of(group)).all().get();
        expect("listed", listedGroups().contains(group), false);
    }

    private Set<String> listedGroups() throws Exception {
        return admin.listGroups().all().get().stream().map(g -> g.groupId()).collect(Collectors.toSet());
    }

    private long committed(String group, TopicPartition partition) throws Exception {
        return admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get().get(partition).offset();
    }

    private void addPartitions() throws Exception {
        String topic = newTopic(1, Map.of());
        admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(4))).all().get();
        until("four partitions", () -> led(topic) == 4);
        expect("offsets", produce(List.of(new ProducerRecord<>(topic, 3, null, bytes("x"))), Map.of()), upTo(1));
    }

    private void configs() throws Exception {
        String topic = newTopic(1, Map.of("retention.ms", "3600000"));
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        expect("retention.ms", config(resource, "retention.ms"), "3600000");
        expect("cleanup.policy", config(resource, "cleanup.policy"), "delete");
        var set = List.of(new AlterConfigOp(new ConfigEntry("retention.ms", "7200000"), SET));
        admin.incrementalAlterConfigs(Map.of(resource, set)).all().get();
        until("altered", () -> config(resource, "retention.ms").equals("7200000"));
        var node = admin.describeCluster().nodes().get().iterator().next();
        ConfigResource broker = new ConfigResource(ConfigResource.Type.BROKER, node.idString());
        expect("broker configs", admin.describeConfigs(List.of(broker)).all().get().get(broker).entries().isEmpty(), false);
    }

    private String config(ConfigResource resource, String name) throws Exception {
        return admin.describeConfigs(List.of(resource)).all().get().get(resource).get(name).value();
    }

    private void listOffsets() throws Exception {
        String topic = newTopic(1, Map.of());
        for (long later : new long[] {0, 5000, 2000}) {
            produce(List.of(new ProducerRecord<>(topic, 0, START_MS + later, null, bytes("x"))), Map.of());
        }
        expect("earliest", offset(topic, OffsetSpec.earliest()), 0L);
        expect("latest", offset(topic, OffsetSpec.latest()), 3L);
        expect("for timestamp", offset(topic, OffsetSpec.forTimestamp(START_MS + 1)), 1L);
        expect("max timestamp", offset(topic, OffsetSpec.maxTimestamp()), 1L);
    }

    private long offset(String topic, OffsetSpec spec) throws Exception {
        TopicPartition partition = new TopicPartition(topic, 0);
        return admin.listOffsets(Map.of(partition, spec)).partitionResult(partition).get().offset();
    }

    private void deleteRecords() throws Exception {
        String topic = newTopic(1, Map.of());
        produce(numbered(topic, 10), Map.of());
        TopicPartition partition = new TopicPartition(topic, 0);
        var deleted = admin.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(6)));
        expect("low watermark", deleted.lowWatermarks().get(partition).get().lowWatermark(), 6L);
        expect("earliest", offset(topic, OffsetSpec.earliest()), 6L);
        expect("first left", read(topic, 4, 6, Map.of()).get(0).offset(), 6L);
    }

    private void deleteTopic() throws Exception {
        String topic = newTopic(1, Map.of());
        admin.deleteTopics(List.of(topic)).all().get();
        until("the topic is gone", () -> !admin.listTopics().names().get().contains(topic));
    }

    // ---- clients ----

    private String newTopic(int partitions, Map<String, String> configs) throws Exception {
        String topic = unique("java");
        admin.createTopics(List.of(new NewTopic(topic, partitions, (short) 1).configs(configs))).all().get();
        until("the topic has leaders", () -> led(topic) == partitions);
        return topic;
    }

    /** Count of partitions with a leader; none while the topic is not known yet. */
    private long led(String topic) throws Exception {
        try {
            var described = admin.describeTopics(List.of(topic)).topicNameValues().get(topic).get();
            return described.partitions().stream().filter(p -> p.leader() != null && !p.leader().isEmpty()).count();
        } catch (ExecutionException unknown) {
            return 0;
        }
    }

    private KafkaProducer<byte[], byte[]> producer(Map<String, Object> settings) {
        Map<String, Object> all = new HashMap<>(Map.of("bootstrap.servers", address));
        all.putAll(settings);
        return new KafkaProducer<>(all, new ByteArraySerializer(), new ByteArraySerializer());
    }

    /** Writes the records in order and returns the offsets the broker gave. */
    private List<Long> produce(List<ProducerRecord<byte[], byte[]>> records, Map<String, Object> settings)
            throws Exception {
        List<Long> offsets = new ArrayList<>();
        try (var producer = producer(settings)) {
            List<Future<RecordMetadata>> answers = records.stream().map(producer::send).toList();
            for (Future<RecordMetadata> answer : answers) {
                offsets.add(answer.get(STEP_SECONDS, TimeUnit.SECONDS).offset());
            }
        }
        return offsets;
    }

    private KafkaConsumer<byte[], byte[]> consumer(Map<String, Object> settings) {
        Map<String, Object> all = new HashMap<>(Map.of(
                "bootstrap.servers", address, "enable.auto.commit", false, "auto.offset.reset", "earliest",
                "session.timeout.ms", 6000, "heartbeat.interval.ms", 500, "fetch.max.wait.ms", 50));
        all.putAll(settings);
        return new KafkaConsumer<>(all, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    private List<ConsumerRecord<byte[], byte[]>> read(String topic, int count, long offset, Map<String, Object> settings)
            throws Exception {
        try (var reader = consumer(settings)) {
            TopicPartition partition = new TopicPartition(topic, 0);
            reader.assign(List.of(partition));
            reader.seek(partition, offset);
            return take(reader, count);
        }
    }

    /** The next records, at least {@code count}; those beyond are left out. */
    private static List<ConsumerRecord<byte[], byte[]>> take(KafkaConsumer<byte[], byte[]> reader, int count)
            throws Exception {
        List<ConsumerRecord<byte[], byte[]>> found = new ArrayList<>();
        until(count + " records", () -> {
            reader.poll(Duration.ofMillis(200)).forEach(found::add);
            return found.size() >= count;
        });
        return found.subList(0, count);
    }

    private static int share(KafkaConsumer<byte[], byte[]> member) {
        member.poll(Duration.ofMillis(50));
        return member.assignment().size();
    }

    // ---- a member that dies ----

    private void memberCommitsAndDies(String topic, String group, int count) throws Exception {
        String java = ProcessHandle.current().info().command().orElseThrow();
        Process member = new ProcessBuilder(java, "-cp", System.getProperty("java.class.path"),
                "-Dorg.slf4j.simpleLogger.defaultLogLevel=off", "Checks", address, "member", topic, group,
                String.valueOf(count)).redirectError(ProcessBuilder.Redirect.DISCARD).start();
        try (var lines = member.inputReader()) {
            String line = lines.readLine();
            expect("what the member says", line, "committed");
        } finally {
            member.destroyForcibly().waitFor();
        }
    }

    private void beMember(String topic, String group, int count) throws Exception {
        var member = consumer(Map.of("group.id", group, "max.poll.records", count));
        member.subscribe(List.of(topic));
        long next = take(member, count).get(count - 1).offset() + 1;
        member.commitSync(Map.of(new TopicPartition(topic, 0), new OffsetAndMetadata(next)));
        System.out.println("committed");
        while (true) {
            member.poll(Duration.ofSeconds(1));
        }
    }

    // ---- small things ----

    private interface Step {
        void run() throws Exception;
    }

    private void check(String name, Step step) {
        String wanted = System.getenv().getOrDefault("CHECK", "");
        if (!name.contains(wanted)) {
            return;
        }
        ExecutorService thread = Executors.newSingleThreadExecutor(work -> {
            Thread daemon = new Thread(work);
            daemon.setDaemon(true);
            return daemon;
        });
        try {
            thread.submit(() -> {
                step.run();
                return null;
            }).get(CHECK_SECONDS, TimeUnit.SECONDS);
            System.out.println("ok " + name);
        } catch (Exception error) {
            Throwable why = error instanceof ExecutionException ? error.getCause() : error;
            if (why instanceof NotServed) {
                System.out.println("skip " + name + ": not served");
                return;
            }
            failed = true;
            String line = String.valueOf(why).replaceAll("\\s+", " ");
            System.out.println("FAIL " + name + ": " + line.substring(0, Math.min(300, line.length())));
            if (System.getenv("VERBOSE") != null) {
                why.printStackTrace();
            }
        } finally {
            thread.shutdownNow();
        }
    }

    /** The broker does not serve what the check is about. */
    private static final class NotServed extends Exception {
        private static final long serialVersionUID = 1;
    }

    /** Leaves the check out, and says so, when the broker does not serve this API. */
    private static void needsApi(int key) throws NotServed {
        if (!List.of(System.getenv("SERVED_APIS").split(" ")).contains(String.valueOf(key))) {
            throw new NotServed();
        }
    }

    private static void until(String what, Callable<Boolean> probe) throws Exception {
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(STEP_SECONDS);
        while (!probe.call()) {
            if (System.nanoTime() > deadline) {
                throw new AssertionError(what + ": not within " + STEP_SECONDS + " s");
            }
            Thread.sleep(20);
        }
    }

    private static void expect(String what, Object actual, Object expected) {
        boolean same = actual instanceof Object[] a && expected instanceof Object[] e
                ? Arrays.equals(a, e) : java.util.Objects.equals(actual, expected);
        if (!same) {
            throw new AssertionError(what + " is " + actual + ", expected " + expected);
        }
    }

    private static String unique(String prefix) {
        return prefix + "-" + UUID.randomUUID().toString().substring(0, 13);
    }

    private static byte[] bytes(String text) {
        return text.getBytes(java.nio.charset.StandardCharsets.UTF_8);
    }

    private static String text(byte[] bytes) {
        return new String(bytes, java.nio.charset.StandardCharsets.UTF_8);
    }

    private static ProducerRecord<byte[], byte[]> record(String topic, String value) {
        return new ProducerRecord<>(topic, 0, null, bytes(value));
    }

    private static List<ProducerRecord<byte[], byte[]>> numbered(String topic, int count) {
        return IntStream.range(0, count).mapToObj(n -> record(topic, "value-" + n)).toList();
    }

    private static List<Long> upTo(int count) {
        return IntStream.range(0, count).mapToObj(n -> (long) n).toList();
    }

    private static List<String> valuesOf(List<ConsumerRecord<byte[], byte[]>> records) {
        return records.stream().map(r -> text(r.value())).toList();
    }
}
