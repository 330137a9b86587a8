"""kafka-python against a broker, for 2.3 and 3.x: the same checks, with the differences of their admins in `Admin`."""

import kafka
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
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, NewPartitions, NewTopic
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from kafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor

MAJOR = int(kafka.__version__.split(".")[0])

check = Checks()
admin = KafkaAdminClient(bootstrap_servers=address())


def new_topic(partitions=1, **configs):
    topic = unique("kafka-python")
    configs = {key.replace("_", "."): str(value) for key, value in configs.items()}
    admin.create_topics([NewTopic(topic, partitions, 1, topic_configs=configs)])
    until("the topic has leaders", lambda: led(topic) == partitions)
    return topic


def led(topic):
    (described,) = admin.describe_topics([topic])
    return sum(p["leader_id" if "leader_id" in p else "leader"] >= 0 for p in described["partitions"])


def produce(topic, records, partition=0, **settings):
    """Writes (key, value, headers, timestamp) in order; returns the offsets the broker gave."""
    producer = KafkaProducer(bootstrap_servers=address(), **settings)
    futures = [
        producer.send(topic, value, key, headers, partition, timestamp or None)
        for key, value, headers, timestamp in records
    ]
    offsets = [future.get(STEP_SECONDS).offset for future in futures]
    producer.close()
    return offsets


def values(count):
    return [(None, f"value-{n}".encode(), [], 0) for n in range(count)]


def consumer(group=None, **settings):
    defaults = {"enable_auto_commit": False, "auto_offset_reset": "earliest", "fetch_max_wait_ms": 50}
    if group:
        defaults |= {"session_timeout_ms": 6000, "heartbeat_interval_ms": 500}
    return KafkaConsumer(bootstrap_servers=address(), group_id=group, **(defaults | settings))


def subscribe(member, topic):
    # One that joins before it knows the topic's partitions joins twice; kafka-python 3.0 then at times never takes its second
    # assignment, of one member in ten on a busy machine, with Kafka 4.3 as with Ringlog.
    member.partitions_for_topic(topic)
    member.subscribe([topic])


def take(reader, count):
    """The next `count` records."""
    return collect(count, lambda: [r for rs in reader.poll(100, max_records=count).values() for r in rs])


def read(topic, count, partition=0, offset=0, **settings):
    reader = consumer(**settings)
    reader.assign([TopicPartition(topic, partition)])
    reader.seek(TopicPartition(topic, partition), offset)
    found = take(reader, count)
    reader.close()
    return found


@check("create topic, metadata")
def _():
    topic = new_topic(3)
    reader = consumer()
    expect("partitions", reader.partitions_for_topic(topic), {0, 1, 2})
    assert topic in reader.topics(), "the topic is listed"
    reader.close()
    cluster = admin.describe_cluster()
    assert cluster["cluster_id"], "the cluster has an id"
    assert cluster["controller_id"] >= 0, "the cluster has a controller"


@check("compression none", None)
@check("compression gzip", "gzip")
@check("compression snappy", "snappy")
@check("compression lz4", "lz4")
@check("compression zstd", "zstd")
def _(codec):
    topic = new_topic()
    sent = [(None, f"{codec} {n} ".encode() * 50, [], 0) for n in range(100)]
    expect("offsets", produce(topic, sent, compression_type=codec, linger_ms=20), list(range(100)))
    expect("values", [r.value for r in read(topic, 100)], [value for _, value, _, _ in sent])


@check("idempotent producer")
def _():
    topic = new_topic()
    offsets = produce(topic, values(500), enable_idempotence=True, batch_size=200)
    expect("offsets", offsets, list(range(500)))
    expect("values", [r.value for r in read(topic, 500)], [value for _, value, _, _ in values(500)])


@check("transactions: committed seen, aborted not")
def _():
    needs_api(ADD_PARTITIONS_TO_TXN)
    topic = new_topic()
    producer = KafkaProducer(bootstrap_servers=address(), transactional_id=unique("transaction"))
    producer.init_transactions()
    for value, finish in [(b"one", producer.commit_transaction), (b"two", producer.abort_transaction),
                          (b"three", producer.commit_transaction)]:
        producer.begin_transaction()
        producer.send(topic, value, partition=0)
        producer.flush(STEP_SECONDS)
        finish()
    producer.close()
    found = read(topic, 2, isolation_level="read_committed")
    expect("values", [r.value for r in found], [b"one", b"three"])


@check("records of 1 MiB")
def _():
    topic = new_topic(max_message_bytes=2 * MIB)
    sent = [(b"k", bytes([n]) * MIB, [], 0) for n in range(3)]
    expect("offsets", produce(topic, sent, max_request_size=2 * MIB), [0, 1, 2])
    assert [r.value for r in read(topic, 3)] == [value for _, value, _, _ in sent], "the values differ"


@check("a record above the topic's limit is refused")
def _():
    topic = new_topic()
    try:
        produce(topic, [(None, b"x" * MIB, [], 0)], max_request_size=2 * MIB)
    except kafka.errors.MessageSizeTooLargeError:
        return
    raise AssertionError("it was taken")


@check("keys, values, headers, timestamps")
def _():
    topic = new_topic()
    produce(topic, SHAPES)
    found = [(r.key, r.value, list(r.headers), r.timestamp) for r in read(topic, len(SHAPES))]
    expect("records", found, SHAPES)


@check("beginning, seek, watermarks")
def _():
    topic = new_topic()
    produce(topic, values(100))
    partition = TopicPartition(topic, 0)
    reader = consumer()
    reader.assign([partition])
    reader.seek_to_beginning(partition)
    expect("first", take(reader, 1)[0].offset, 0)
    for target in [90, 3, 42]:
        reader.seek(partition, target)
        expect("offset", take(reader, 1)[0].offset, target)
    expect("beginning", reader.beginning_offsets([partition]), {partition: 0})
    expect("end", reader.end_offsets([partition]), {partition: 100})
    reader.close()


@check("offsets for times")
def _():
    topic = new_topic()
    producer = KafkaProducer(bootstrap_servers=address())
    for n in range(10):
        producer.send(topic, b"x", partition=0, timestamp_ms=START_MS + n * 1000).get(STEP_SECONDS)
    producer.close()
    partition = TopicPartition(topic, 0)
    reader = consumer()

    def offset(timestamp):
        found = reader.offsets_for_times({partition: timestamp})[partition]
        return found and found.offset

    expect("at the first", offset(START_MS), 0)
    expect("between", offset(START_MS + 3001), 4)
    expect("after all", offset(START_MS + 9001), None)
    reader.close()


@check("two members, range", RangePartitionAssignor)
@check("two members, round robin", RoundRobinPartitionAssignor)
@check("two members, sticky", StickyPartitionAssignor)
def _(assignor):
    topic, group = new_topic(4), unique("group")
    first, second = (consumer(group, partition_assignment_strategy=[assignor]) for _ in range(2))
    subscribe(first, topic)
    until("one has all", lambda: share(first) == 4)
    subscribe(second, topic)
    until("each has half", lambda: (share(first), share(second)) == (2, 2))
    first.close()
    until("the other has all", lambda: share(second) == 4)
    second.close()


def share(member):
    # Not shorter: kafka-python 3.0 drops a rebalance that a poll of 50 ms cuts short, and starts over for ever.
    member.poll(500)
    return len(member.assignment())


@check("another member goes on after one is killed")
def _():
    topic, group = new_topic(), unique("group")
    produce(topic, values(10))
    Member(topic, group, 4).kill()
    second = consumer(group)
    subscribe(second, topic)
    expect("first offset of the second member", take(second, 6)[0].offset, 4)
    second.close()


def be_member(topic, group, count):
    member = consumer(group)
    subscribe(member, topic)
    take(member, count)
    member.commit()
    print("committed", flush=True)
    while True:
        member.poll(1000)


@check("static member keeps its partitions")
def _():
    topic, group = new_topic(4), unique("group")

    def new(instance):
        member = consumer(group, group_instance_id=instance)
        subscribe(member, topic)
        return member

    one = new("one")
    # Both at once would wait 6 s for others with the usual group.initial.rebalance.delay.ms: see `share`.
    until("one has all", lambda: share(one) == 4)
    two = new("two")
    until("each has half", lambda: (share(one), share(two)) == (2, 2))
    held = two.assignment()
    two.close()
    two = new("two")
    until("it is back", lambda: (share(one), share(two)) == (2, 2))
    expect("partitions", two.assignment(), held)
    one.close()
    two.close()


@check("list, describe, delete groups")
def _():
    topic, group = new_topic(), unique("group")
    produce(topic, values(5))
    member = consumer(group)
    subscribe(member, topic)
    take(member, 3)
    member.commit()
    assert group in listed_groups(), "the group is listed"
    state, members = described_group(group)
    expect("state", (state, members), ("Stable", 1))
    expect("committed", committed_offset(group, TopicPartition(topic, 0)), 3)
    member.close()
    until("the group is empty", lambda: described_group(group) == ("Empty", 0))
    (admin.delete_groups if MAJOR >= 3 else admin.delete_consumer_groups)([group])
    assert group not in listed_groups(), "the group is gone"


def listed_groups():
    if MAJOR >= 3:
        return {g["group_id"] for g in admin.list_groups()}
    return {group for group, _ in admin.list_consumer_groups()}


def described_group(group):
    """(state, count of members)"""
    if MAJOR >= 3:
        described = admin.describe_groups([group])[group]
        return described["group_state"], len(described["members"])
    (described,) = admin.describe_consumer_groups([group])
    return described.state, len(described.members)


def committed_offset(group, partition):
    if MAJOR >= 3:
        return admin.list_group_offsets({group: [partition]})[group][partition].offset
    return admin.list_consumer_group_offsets(group)[partition].offset


@check("add partitions")
def _():
    topic = new_topic(1)
    admin.create_partitions({topic: NewPartitions(4)})
    until("four partitions", lambda: led(topic) == 4)
    expect("offsets", produce(topic, values(1), partition=3), [0])


@check("describe and alter configs")
def _():
    topic = new_topic(retention_ms=3600000)
    expect("retention.ms", topic_config(topic, "retention.ms"), "3600000")
    expect("cleanup.policy", topic_config(topic, "cleanup.policy"), "delete")
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"retention.ms": "7200000"})])
    until("altered", lambda: topic_config(topic, "retention.ms") == "7200000")


def topic_config(topic, name):
    resource = ConfigResource(ConfigResourceType.TOPIC, topic)
    if MAJOR >= 3:
        described = admin.describe_configs([resource], config_filter="all")
        return described["topic" if "topic" in described else ConfigResourceType.TOPIC][topic][name]["value"]
    (answer,) = admin.describe_configs([resource])
    ((_, _, _, _, entries),) = answer.resources
    return {entry[0]: entry[1] for entry in entries}[name]


if MAJOR >= 3:

    @check("list offsets: earliest, latest, timestamp, max timestamp")
    def _():
        from kafka.admin import OffsetSpec, OffsetTimestamp

        topic = new_topic()
        for timestamp in [0, 5000, 2000]:
            produce(topic, [(None, b"x", [], START_MS + timestamp)])
        partition = TopicPartition(topic, 0)

        def offset(spec):
            return admin.list_partition_offsets({partition: spec})[partition].offset

        expect("earliest", offset(OffsetSpec.EARLIEST), 0)
        expect("latest", offset(OffsetSpec.LATEST), 3)
        expect("for timestamp", offset(OffsetTimestamp(START_MS + 1)), 1)
        expect("max timestamp", offset(OffsetSpec.MAX_TIMESTAMP), 1)


@check("delete records")
def _():
    topic = new_topic()
    produce(topic, values(10))
    admin.delete_records({TopicPartition(topic, 0): 6}, timeout_ms=STEP_SECONDS * 1000)
    reader = consumer()
    expect("beginning", reader.beginning_offsets([TopicPartition(topic, 0)]), {TopicPartition(topic, 0): 6})
    reader.close()
    expect("first left", read(topic, 4, offset=6)[0].offset, 6)


@check("delete topic")
def _():
    topic = new_topic()
    admin.delete_topics([topic])
    until("the topic is gone", lambda: topic not in admin.list_topics())


if member_arguments():
    be_member(*member_arguments())
check.run()
