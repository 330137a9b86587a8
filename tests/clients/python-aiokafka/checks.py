"""aiokafka against a broker: its asynchronous producer, consumer and admin."""

import asyncio

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import MessageSizeTooLargeError
from check import (
    ADD_PARTITIONS_TO_TXN,
    MIB,
    SHAPES,
    START_MS,
    STEP_SECONDS,
    Checks,
    Member,
    address,
    expect,
    member_arguments,
    needs_api,
    unique,
)

check = Checks()


class Client:
    """`async with` for aiokafka's three clients, which are started and stopped (or closed)."""

    def __init__(self, client):
        self.client = client

    async def __aenter__(self):
        await self.client.start()
        return self.client

    async def __aexit__(self, *_):
        await (self.client.close() if hasattr(self.client, "close") else self.client.stop())


def admin_client():
    return Client(AIOKafkaAdminClient(bootstrap_servers=address()))


async def until(what, probe, seconds=STEP_SECONDS):
    async with asyncio.timeout(seconds):
        while not await probe():
            await asyncio.sleep(0.02)
    return what


async def new_topic(admin, partitions=1, **configs):
    topic = unique("aiokafka")
    configs = {key.replace("_", "."): str(value) for key, value in configs.items()}
    answer = await admin.create_topics([NewTopic(topic, partitions, 1, topic_configs=configs)])
    expect("errors", [error for _, error, *_ in answer.topic_errors], [0])

    async def ready():
        return await led(admin, topic) == partitions

    await until("the topic has leaders", ready)
    return topic


async def led(admin, topic):
    (described,) = await admin.describe_topics([topic])
    return sum(p["leader"] >= 0 for p in described["partitions"])


async def produce(topic, records, partition=0, **settings):
    """Writes (key, value, headers, timestamp) in order; returns the offsets the broker gave."""
    async with Client(AIOKafkaProducer(bootstrap_servers=address(), **settings)) as producer:
        futures = [
            await producer.send(topic, value, key, partition, timestamp or None, headers)
            for key, value, headers, timestamp in records
        ]
        return [(await future).offset for future in futures]


def values(count):
    return [(None, f"value-{n}".encode(), [], 0) for n in range(count)]


def consumer(*topics, group=None, **settings):
    defaults = {"enable_auto_commit": False, "auto_offset_reset": "earliest", "fetch_max_wait_ms": 50}
    if group:
        # What the admin changed shows to members this often.
        defaults |= {"session_timeout_ms": 6000, "heartbeat_interval_ms": 500, "metadata_max_age_ms": 1000}
    return Client(AIOKafkaConsumer(*topics, bootstrap_servers=address(), group_id=group, **(defaults | settings)))


async def take(reader, count):
    return [await asyncio.wait_for(reader.getone(), STEP_SECONDS) for _ in range(count)]


async def read(topic, count, partition=0, offset=0, **settings):
    async with consumer(**settings) as reader:
        reader.assign([TopicPartition(topic, partition)])
        reader.seek(TopicPartition(topic, partition), offset)
        return await take(reader, count)


@check("create topic, metadata")
async def _(admin):
    topic = await new_topic(admin, 3)
    assert topic in await admin.list_topics(), "the topic is listed"
    cluster = await admin.describe_cluster()
    assert cluster["cluster_id"] and cluster["controller_id"] >= 0, f"the cluster is {cluster}"


@check("compression none", None)
@check("compression gzip", "gzip")
@check("compression snappy", "snappy")
@check("compression lz4", "lz4")
@check("compression zstd", "zstd")
async def _(admin, codec):
    topic = await new_topic(admin)
    sent = [(None, f"{codec} {n} ".encode() * 50, [], 0) for n in range(100)]
    expect("offsets", await produce(topic, sent, compression_type=codec, linger_ms=20), list(range(100)))
    expect("values", [r.value for r in await read(topic, 100)], [value for _, value, _, _ in sent])


@check("idempotent producer")
async def _(admin):
    topic = await new_topic(admin)
    offsets = await produce(topic, values(500), enable_idempotence=True, max_batch_size=200)
    expect("offsets", offsets, list(range(500)))
    expect("values", [r.value for r in await read(topic, 500)], [value for _, value, _, _ in values(500)])


@check("transactions: committed seen, aborted not")
async def _(admin):
    needs_api(ADD_PARTITIONS_TO_TXN)
    topic = await new_topic(admin)
    settings = {"bootstrap_servers": address(), "transactional_id": unique("transaction")}
    async with Client(AIOKafkaProducer(**settings)) as producer:
        for value, finish in [(b"one", producer.commit_transaction), (b"two", producer.abort_transaction),
                              (b"three", producer.commit_transaction)]:
            await producer.begin_transaction()
            await producer.send_and_wait(topic, value, partition=0)
            await finish()
    found = await read(topic, 2, isolation_level="read_committed")
    expect("values", [r.value for r in found], [b"one", b"three"])


@check("records of 1 MiB")
async def _(admin):
    topic = await new_topic(admin, max_message_bytes=2 * MIB)
    sent = [(b"k", bytes([n]) * MIB, [], 0) for n in range(3)]
    expect("offsets", await produce(topic, sent, max_request_size=2 * MIB), [0, 1, 2])
    assert [r.value for r in await read(topic, 3)] == [value for _, value, _, _ in sent], "the values differ"


@check("a record above the topic's limit is refused")
async def _(admin):
    topic = await new_topic(admin)
    try:
        await produce(topic, [(None, b"x" * MIB, [], 0)], max_request_size=2 * MIB)
    except MessageSizeTooLargeError:
        return
    raise AssertionError("it was taken")


@check("keys, values, headers, timestamps")
async def _(admin):
    topic = await new_topic(admin)
    await produce(topic, SHAPES)
    found = [(r.key, r.value, list(r.headers), r.timestamp) for r in await read(topic, len(SHAPES))]
    expect("records", found, SHAPES)


@check("beginning, seek, watermarks")
async def _(admin):
    topic = await new_topic(admin)
    await produce(topic, values(100))
    partition = TopicPartition(topic, 0)
    async with consumer() as reader:
        reader.assign([partition])
        await reader.seek_to_beginning(partition)
        expect("first", (await take(reader, 1))[0].offset, 0)
        for target in [90, 3, 42]:
            reader.seek(partition, target)
            expect("offset", (await take(reader, 1))[0].offset, target)
        expect("beginning", await reader.beginning_offsets([partition]), {partition: 0})
        expect("end", await reader.end_offsets([partition]), {partition: 100})


@check("offsets for times")
async def _(admin):
    topic = await new_topic(admin)
    partition = TopicPartition(topic, 0)
    async with Client(AIOKafkaProducer(bootstrap_servers=address())) as producer:
        for n in range(10):
            await producer.send_and_wait(topic, b"x", partition=0, timestamp_ms=START_MS + n * 1000)
    async with consumer() as reader:

        async def offset(timestamp):
            found = (await reader.offsets_for_times({partition: timestamp}))[partition]
            return found and found.offset

        expect("at the first", await offset(START_MS), 0)
        expect("between", await offset(START_MS + 3001), 4)
        expect("after all", await offset(START_MS + 9001), None)


@check("two members, range", RangePartitionAssignor)
@check("two members, round robin", RoundRobinPartitionAssignor)
@check("two members, sticky", StickyPartitionAssignor)
async def _(admin, assignor):
    topic, group = await new_topic(admin, 4), unique("group")
    settings = {"group": group, "partition_assignment_strategy": [assignor]}
    async with consumer(topic, **settings) as second:
        async with consumer(topic, **settings) as first:
            await until("each has half", shares([first, second], [2, 2]))
        await until("the other has all", shares([second], [4]))


def shares(members, wanted):
    async def probe():
        return [len(m.assignment()) for m in members] == wanted

    return probe


@check("another member goes on after one is killed")
async def _(admin):
    topic, group = await new_topic(admin), unique("group")
    await produce(topic, values(10))
    member = await asyncio.to_thread(Member, topic, group, 4)
    member.kill()
    async with consumer(topic, group=group) as second:
        expect("first offset of the second member", (await take(second, 6))[0].offset, 4)


async def be_member(topic, group, count):
    async with consumer(topic, group=group) as member:
        last = (await take(member, count))[-1]
        await member.commit({TopicPartition(topic, last.partition): last.offset + 1})
        print("committed", flush=True)
        await asyncio.sleep(60)


@check("static member keeps its partitions")
async def _(admin):
    topic, group = await new_topic(admin, 4), unique("group")

    def new(instance):
        return consumer(topic, group=group, group_instance_id=instance)

    async with new("one") as one:
        async with new("two") as two:
            await until("each has half", shares([one, two], [2, 2]))
            held = two.assignment()
        async with new("two") as two:
            await until("it is back", shares([one, two], [2, 2]))
            expect("partitions", two.assignment(), held)


@check("list, describe groups")
async def _(admin):
    topic, group = await new_topic(admin), unique("group")
    await produce(topic, values(5))
    async with consumer(topic, group=group) as member:
        await take(member, 3)
        await member.commit()
        assert group in {name for name, *_ in await admin.list_consumer_groups()}, "the group is listed"
        (answer,) = await admin.describe_consumer_groups([group])
        ((error, name, state, _, _, members),) = [g[:6] for g in answer.groups]
        expect("group", (error, name, state, len(members)), (0, group, "Stable", 1))
        committed = await admin.list_consumer_group_offsets(group)
        expect("committed", committed[TopicPartition(topic, 0)].offset, 3)


@check("add partitions")
async def _(admin):
    topic = await new_topic(admin, 1)
    await admin.create_partitions({topic: NewPartitions(4)})

    async def ready():
        return await led(admin, topic) == 4

    await until("four partitions", ready)
    expect("offsets", await produce(topic, values(1), partition=3), [0])


@check("describe and alter configs")
async def _(admin):
    topic = await new_topic(admin, retention_ms=3600000)

    async def value(name):
        (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
        ((_, _, _, _, entries),) = answer.resources
        return {entry[0]: entry[1] for entry in entries}[name]

    expect("retention.ms", await value("retention.ms"), "3600000")
    expect("cleanup.policy", await value("cleanup.policy"), "delete")
    await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"retention.ms": "7200000"})])

    async def altered():
        return await value("retention.ms") == "7200000"

    await until("altered", altered)


@check("delete records")
async def _(admin):
    topic = await new_topic(admin)
    await produce(topic, values(10))
    partition = TopicPartition(topic, 0)
    deleted = await admin.delete_records({partition: RecordsToDelete(before_offset=6)})
    expect("low watermark", deleted[partition], 6)
    expect("first left", (await read(topic, 4, offset=6))[0].offset, 6)


@check("delete topic")
async def _(admin):
    topic = await new_topic(admin)
    await admin.delete_topics([topic])

    async def gone():
        return topic not in await admin.list_topics()

    await until("the topic is gone", gone)


async def with_admin(function, arguments):
    async with asyncio.timeout(44), admin_client() as admin:
        await function(admin, *arguments)


if member_arguments():
    asyncio.run(be_member(*member_arguments()))
check.run(call=lambda function, arguments: asyncio.run(with_admin(function, arguments)))
