"""confluent-kafka against a broker: everything its clients and its admin can ask for."""

from check import (
    ADD_PARTITIONS_TO_TXN,
    MIB,
    SHAPES,
    START_MS,
    STEP_SECONDS,
    Checks,
    Member,
    address,
    collect,
    expect,
    member_arguments,
    needs_api,
    unique,
    until,
)
from confluent_kafka import (
    Consumer,
    ConsumerGroupState,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

check = Checks()


def config(**overrides):
    common = {"bootstrap.servers": address(), "broker.address.family": "v4"}
    return common | {key.replace("_", "."): value for key, value in overrides.items()}


admin = AdminClient(config())


def new_topic(partitions=1, **configs):
    topic = unique("confluent")
    configs = {key.replace("_", "."): str(value) for key, value in configs.items()}
    done(admin.create_topics([NewTopic(topic, partitions, 1, config=configs)]))
    until("the topic has leaders", lambda: led(topic) == partitions)
    return topic


def led(topic):
    found = admin.list_topics(topic, timeout=STEP_SECONDS).topics[topic].partitions
    return sum(p.leader >= 0 for p in found.values())


def done(futures):
    """The result of the only future among `futures`, raising its error."""
    (future,) = futures.values()
    return future.result(timeout=STEP_SECONDS)


def produce(topic, records, partition=0, **overrides):
    """Writes (key, value, headers, timestamp) in order; returns the offsets the broker gave."""
    offsets = []

    def delivered(error, message):
        offsets.append(error or message.offset())

    producer = Producer(config(**overrides))
    for key, value, headers, timestamp in records:
        producer.produce(topic, value, key, partition, on_delivery=delivered, timestamp=timestamp, headers=headers)
        producer.poll(0)
    expect("records left after flush", producer.flush(STEP_SECONDS), 0)
    return offsets


def values(count, text="value"):
    return [(None, f"{text}-{n}".encode(), [], 0) for n in range(count)]


def consumer(group=None, **overrides):
    defaults = {"group_id": group or unique("group"), "enable_auto_commit": False, "auto_offset_reset": "earliest"}
    defaults |= {"session_timeout_ms": 6000, "heartbeat_interval_ms": 500, "fetch_wait_max_ms": 50}
    return Consumer(config(**(defaults | overrides)))


def read(topic, count, partition=0, offset=0):
    reader = consumer()
    reader.assign([TopicPartition(topic, partition, offset)])
    found = take(reader, count)
    reader.close()
    return found


def take(reader, count):
    """The next `count` messages."""

    def poll():
        message = reader.poll(0.1)
        if message is None:
            return []
        if message.error():
            raise KafkaException(message.error())
        return [message]

    return collect(count, poll)


@check("create topic, metadata")
def _():
    topic = new_topic(3)
    metadata = admin.list_topics(topic, timeout=STEP_SECONDS)
    expect("partitions", sorted(metadata.topics[topic].partitions), [0, 1, 2])
    assert metadata.cluster_id, "the cluster has an id"
    assert metadata.controller_id in metadata.brokers, "the controller is one of the brokers"
    cluster = admin.describe_cluster().result(timeout=STEP_SECONDS)
    expect("nodes", {n.id for n in cluster.nodes}, set(metadata.brokers))


@check("compression none", "none")
@check("compression gzip", "gzip")
@check("compression snappy", "snappy")
@check("compression lz4", "lz4")
@check("compression zstd", "zstd")
def _(codec):
    topic = new_topic()
    sent = [(None, f"{codec} {n} ".encode() * 50, [], 0) for n in range(100)]
    expect("offsets", produce(topic, sent, compression_type=codec, linger_ms=20), list(range(100)))
    expect("values", [m.value() for m in read(topic, 100)], [value for _, value, _, _ in sent])


@check("idempotent producer")
def _():
    topic = new_topic()
    offsets = produce(topic, values(1000), enable_idempotence=True, batch_num_messages=10, linger_ms=0)
    expect("offsets", offsets, list(range(1000)))
    expect("values", [m.value() for m in read(topic, 1000)], [value for _, value, _, _ in values(1000)])


@check("transactions: committed seen, aborted not")
def _():
    needs_api(ADD_PARTITIONS_TO_TXN)
    topic = new_topic()
    producer = Producer(config(transactional_id=unique("transaction")))
    producer.init_transactions(STEP_SECONDS)
    for value, finish in [("one", producer.commit_transaction), ("two", producer.abort_transaction),
                          ("three", producer.commit_transaction)]:
        producer.begin_transaction()
        producer.produce(topic, value, partition=0)
        producer.flush(STEP_SECONDS)
        finish(STEP_SECONDS)
    expect("values", [m.value() for m in read(topic, 2)], [b"one", b"three"])


@check("records of 1 MiB")
def _():
    topic = new_topic(max_message_bytes=2 * MIB)
    sent = [(b"k", bytes([n]) * MIB, [], 0) for n in range(3)]
    expect("offsets", produce(topic, sent, message_max_bytes=2 * MIB), [0, 1, 2])
    assert [m.value() for m in read(topic, 3)] == [value for _, value, _, _ in sent], "the values differ"


@check("a record above the topic's limit is refused")
def _():
    topic = new_topic()
    (error,) = produce(topic, [(None, b"x" * MIB, [], 0)], message_max_bytes=2 * MIB)
    expect("error", error.code(), KafkaError.MSG_SIZE_TOO_LARGE)


@check("keys, values, headers, timestamps")
def _():
    topic = new_topic()
    produce(topic, SHAPES)
    found = read(topic, len(SHAPES))
    shapes = [(m.key(), m.value(), m.headers() or [], m.timestamp()[1]) for m in found]
    expect("records", shapes, SHAPES)


@check("beginning, seek, watermarks")
def _():
    topic = new_topic()
    produce(topic, values(100))
    reader = consumer()
    reader.assign([TopicPartition(topic, 0, 0)])
    expect("first", take(reader, 1)[0].offset(), 0)
    for target in [90, 3, 42]:
        reader.seek(TopicPartition(topic, 0, target))
        expect("offset", take(reader, 1)[0].offset(), target)
    expect("watermarks", reader.get_watermark_offsets(TopicPartition(topic, 0), STEP_SECONDS), (0, 100))
    reader.close()


@check("offsets for times")
def _():
    topic = new_topic()
    for n in range(10):
        produce(topic, [(None, b"x", [], START_MS + n * 1000)])
    reader = consumer()

    def offset(timestamp):
        return reader.offsets_for_times([TopicPartition(topic, 0, timestamp)], STEP_SECONDS)[0].offset

    expect("at the first", offset(START_MS), 0)
    expect("between", offset(START_MS + 3001), 4)
    expect("after all", offset(START_MS + 9001), -1)
    reader.close()


@check("two members, eager", "range")
@check("two members, cooperative", "cooperative-sticky")
def _(strategy):
    topic, group = new_topic(4), unique("group")
    first, second = (consumer(group, partition_assignment_strategy=strategy) for _ in range(2))
    first.subscribe([topic])
    until("one has all", lambda: share(first) == 4)
    second.subscribe([topic])
    until("each has half", lambda: (share(first), share(second)) == (2, 2))
    first.close()
    until("the other has all", lambda: share(second) == 4)
    second.close()


def share(member):
    message = member.poll(0.05)
    if message is not None and message.error():
        raise KafkaException(message.error())
    return len(member.assignment())


@check("another member goes on after one is killed")
def _():
    topic, group = new_topic(), unique("group")
    produce(topic, values(10))
    Member(topic, group, 4).kill()
    second = consumer(group)
    second.subscribe([topic])
    expect("first offset of the second member", take(second, 6)[0].offset(), 4)
    second.close()


def be_member(topic, group, count):
    member = consumer(group)
    member.subscribe([topic])
    member.commit(take(member, count)[-1], asynchronous=False)
    print("committed", flush=True)
    while True:
        member.poll(1)


@check("static member keeps its partitions")
def _():
    topic, group = new_topic(4), unique("group")

    def new(instance):
        member = consumer(group, group_instance_id=instance)
        member.subscribe([topic])
        return member

    one, two = new("one"), new("two")
    until("each has half", lambda: (share(one), share(two)) == (2, 2))
    held = sorted(p.partition for p in two.assignment())
    two.close()
    two = new("two")
    until("it is back", lambda: (share(one), share(two)) == (2, 2))
    expect("partitions", sorted(p.partition for p in two.assignment()), held)
    one.close()
    two.close()


@check("list, describe, delete groups")
def _():
    topic, group = new_topic(), unique("group")
    produce(topic, values(5))
    member = consumer(group)
    member.subscribe([topic])
    member.commit(take(member, 3)[-1], asynchronous=False)
    listed = admin.list_consumer_groups().result(timeout=STEP_SECONDS).valid
    assert group in {g.group_id for g in listed}, "the group is listed"
    described = done(admin.describe_consumer_groups([group]))
    expect("state", described.state, ConsumerGroupState.STABLE)
    expect("members", len(described.members), 1)
    expect("assigned", [(p.topic, p.partition) for p in described.members[0].assignment.topic_partitions], [(topic, 0)])
    committed = done(admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)]))
    expect("committed", [p.offset for p in committed.topic_partitions], [3])
    member.close()
    until("the group is empty", lambda: done(admin.describe_consumer_groups([group])).state == ConsumerGroupState.EMPTY)
    done(admin.delete_consumer_groups([group]))
    listed = admin.list_consumer_groups().result(timeout=STEP_SECONDS).valid
    assert group not in {g.group_id for g in listed}, "the group is gone"


@check("add partitions")
def _():
    topic = new_topic(1)
    done(admin.create_partitions([NewPartitions(topic, 4)]))
    until("four partitions", lambda: led(topic) == 4)
    expect("offsets", produce(topic, values(1), partition=3), [0])


@check("describe and alter configs")
def _():
    topic = new_topic(retention_ms=3600000)
    resource = ConfigResource(ResourceType.TOPIC, topic)

    def configs():
        return done(admin.describe_configs([resource]))

    expect("retention.ms", configs()["retention.ms"].value, "3600000")
    expect("cleanup.policy", configs()["cleanup.policy"].value, "delete")
    entry = ConfigEntry("retention.ms", "7200000", incremental_operation=AlterConfigOpType.SET)
    done(admin.incremental_alter_configs([ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])]))
    until("altered", lambda: configs()["retention.ms"].value == "7200000")
    broker = str(min(admin.list_topics(timeout=STEP_SECONDS).brokers))
    assert done(admin.describe_configs([ConfigResource(ResourceType.BROKER, broker)])), "broker configs are listed"


@check("list offsets: earliest, latest, timestamp, max timestamp")
def _():
    topic = new_topic()
    for timestamp in [0, 5000, 2000]:
        produce(topic, [(None, b"x", [], START_MS + timestamp)])
    partition = TopicPartition(topic, 0)

    def offset(spec):
        return done(admin.list_offsets({partition: spec})).offset

    expect("earliest", offset(OffsetSpec.earliest()), 0)
    expect("latest", offset(OffsetSpec.latest()), 3)
    expect("for timestamp", offset(OffsetSpec.for_timestamp(START_MS + 1)), 1)
    expect("max timestamp", offset(OffsetSpec.max_timestamp()), 1)


@check("delete records")
def _():
    topic = new_topic()
    produce(topic, values(10))
    deleted = done(admin.delete_records([TopicPartition(topic, 0, 6)]))
    expect("low watermark", deleted.low_watermark, 6)
    expect("first left", read(topic, 4, offset=6)[0].offset(), 6)


@check("delete topic")
def _():
    topic = new_topic()
    done(admin.delete_topics([topic]))
    until("the topic is gone", lambda: topic not in admin.list_topics(timeout=STEP_SECONDS).topics)


if member_arguments():
    be_member(*member_arguments())
check.run()
