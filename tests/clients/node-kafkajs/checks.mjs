// KafkaJS against a broker: its producer, consumer and admin, and the program most people write with them.

import { fork } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import kafkajs from 'kafkajs'
import snappy from 'kafkajs-snappy'
import lz4 from 'lz4-napi'
import zstdCodec from 'zstd-codec'
import { ADD_PARTITIONS_TO_TXN, Checks, eventually, expect, needsApi, unique } from './check.mjs'

const { AssignerProtocol, CompressionCodecs, CompressionTypes, ConfigResourceTypes, Kafka, logLevel } = kafkajs

const address = process.argv[2]
const MIB = 1 << 20
const START_MS = 1_700_000_000_000

const zstd = await new Promise((ready) => zstdCodec.ZstdCodec.run((z) => ready(new z.Simple())))
CompressionCodecs[CompressionTypes.Snappy] = snappy
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: (encoder) => lz4.compressFrame(encoder.buffer),
  decompress: (bytes) => lz4.decompressFrame(bytes),
})
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async (encoder) => Buffer.from(zstd.compress(encoder.buffer)),
  decompress: async (bytes) => Buffer.from(zstd.decompress(bytes)),
})

const kafka = new Kafka({
  clientId: 'checks',
  brokers: [address],
  logLevel: process.env.VERBOSE ? logLevel.INFO : logLevel.NOTHING,
})
const admin = kafka.admin()

async function newTopic(partitions = 1, configs = {}) {
  const topic = unique('kafkajs')
  const configEntries = Object.entries(configs).map(([name, value]) => ({ name, value: String(value) }))
  const created = await admin.createTopics({
    waitForLeaders: true,
    topics: [{ topic, numPartitions: partitions, replicationFactor: 1, configEntries }],
  })
  expect('created', created, true)
  return topic
}

/** Sends all messages as one batch and returns the offset of the first. */
async function produce(topic, messages, { compression, ...settings } = {}) {
  const producer = kafka.producer(settings)
  await producer.connect()
  const [sent] = await producer.send({ topic, messages, compression })
  await producer.disconnect()
  return Number(sent.baseOffset)
}

const values = (count) => Array.from({ length: count }, (_, n) => ({ value: `value-${n}`, partition: 0 }))

/** A member of `group` that collects what it reads into `seen` and notes its partitions in `assigned`. */
async function member(group, topic, { seek, autoCommit = true, assigners, onMessage } = {}) {
  const consumer = kafka.consumer({
    groupId: group,
    sessionTimeout: 6000,
    heartbeatInterval: 500,
    rebalanceTimeout: 6000,
    maxWaitTimeInMs: 50,
    metadataMaxAge: 1000,
    ...(assigners && { partitionAssigners: assigners }),
  })
  const self = { consumer, seen: [], assigned: [] }
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
    self.assigned = payload.memberAssignment[topic] ?? []
  })
  await consumer.connect()
  await consumer.subscribe({ topics: [topic], fromBeginning: true })
  await consumer.run({
    autoCommit,
    autoCommitThreshold: 1,
    eachMessage: async (record) => {
      self.seen.push(record)
      await onMessage?.(record, consumer)
    },
  })
  if (seek !== undefined) consumer.seek({ topic, partition: 0, offset: String(seek) })
  return self
}

/** The first `count` messages of partition 0 from `offset` on. */
async function read(topic, count, offset) {
  const reader = await member(unique('reader'), topic, { seek: offset })
  const from = offset ?? 0
  const wanted = () => reader.seen.map(({ message }) => message).filter((m) => Number(m.offset) >= from)
  await eventually(`${count} messages`, () => wanted().length >= count)
  await reader.consumer.disconnect()
  return wanted().slice(0, count)
}

if (process.argv[3] === 'member') {
  // A member in a process of its own: says how much it has committed until somebody kills it.
  const [topic, group] = process.argv.slice(4)
  await member(group, topic, {
    autoCommit: false,
    onMessage: async ({ message }, consumer) => {
      if (Number(message.offset) >= 4) return new Promise(() => {})
      await consumer.commitOffsets([{ topic, partition: 0, offset: String(Number(message.offset) + 1) }])
      process.send({ committed: Number(message.offset) + 1 })
    },
  })
  await new Promise(() => {})
}

/** Starts a member in a process of its own, waits until it has committed 4 messages, and kills it. */
async function memberCommitsAndDies(topic, group) {
  const child = fork(fileURLToPath(import.meta.url), [address, 'member', topic, group])
  await new Promise((done, failed) => {
    child.on('message', ({ committed }) => committed === 4 && done())
    child.on('exit', () => failed(new Error('the member ended before it had committed')))
  })
  child.removeAllListeners('exit')
  child.kill('SIGKILL')
}

const check = new Checks()

check.add('create topic, metadata', async () => {
  const topic = await newTopic(3)
  const { topics } = await admin.fetchTopicMetadata({ topics: [topic] })
  expect('partitions', topics[0].partitions.map((p) => p.partitionId).sort(), [0, 1, 2])
  expect('listed', (await admin.listTopics()).includes(topic), true)
  const cluster = await admin.describeCluster()
  expect('the controller is a broker', cluster.brokers.some((b) => b.nodeId === cluster.controller), true)
})

for (const codec of ['None', 'GZIP', 'Snappy', 'LZ4', 'ZSTD']) {
  check.add(`compression ${codec.toLowerCase()}`, async () => {
    const topic = await newTopic()
    const sent = Array.from({ length: 100 }, (_, n) => ({ value: `${codec} ${n} `.repeat(50), partition: 0 }))
    expect('offset', await produce(topic, sent, { compression: CompressionTypes[codec] }), 0)
    const found = await read(topic, 100)
    expect('values', found.map((m) => m.value.toString()), sent.map((m) => m.value))
  })
}

check.add('idempotent producer', async () => {
  const topic = await newTopic()
  const producer = kafka.producer({ idempotent: true, maxInFlightRequests: 1 })
  await producer.connect()
  for (const message of values(100)) await producer.send({ topic, messages: [message] })
  await producer.disconnect()
  const found = await read(topic, 100)
  expect('values', found.map((m) => m.value.toString()), values(100).map((m) => m.value))
})

check.add('transactions: committed seen, aborted not', async () => {
  needsApi(ADD_PARTITIONS_TO_TXN)
  const topic = await newTopic()
  const producer = kafka.producer({ transactionalId: unique('transaction'), maxInFlightRequests: 1, idempotent: true })
  await producer.connect()
  for (const [value, finish] of [['one', 'commit'], ['two', 'abort'], ['three', 'commit']]) {
    const transaction = await producer.transaction()
    await transaction.send({ topic, messages: [{ value, partition: 0 }] })
    await transaction[finish]()
  }
  await producer.disconnect()
  expect('values', (await read(topic, 2)).map((m) => m.value.toString()), ['one', 'three'])
})

check.add('records of 1 MiB', async () => {
  const topic = await newTopic(1, { 'max.message.bytes': 2 * MIB })
  for (let n = 0; n < 3; n++) await produce(topic, [{ value: Buffer.alloc(MIB, n), partition: 0 }])
  const found = await read(topic, 3)
  expect('values', found.map((m) => m.value.equals(Buffer.alloc(MIB, Number(m.offset)))), [true, true, true])
})

check.add("a record above the topic's limit is refused", async () => {
  const topic = await newTopic()
  const error = await produce(topic, [{ value: Buffer.alloc(MIB), partition: 0 }]).catch((e) => e)
  expect('error', error.type, 'MESSAGE_TOO_LARGE')
})

check.add('keys, values, headers, timestamps', async () => {
  const topic = await newTopic()
  const shapes = [
    { key: 'key', value: 'value', headers: {} },
    { key: null, value: 'no key', headers: {} },
    { key: 'tombstone', value: null, headers: {} },
    { key: '', value: '', headers: {} },
    { key: 'k', value: 'v', headers: { twice: ['one', 'two'], empty: '' } },
  ].map((shape, n) => ({ ...shape, timestamp: String(START_MS + n) }))
  await produce(topic, shapes.map((shape) => ({ ...shape, partition: 0 })))
  const text = (bytes) => (Array.isArray(bytes) ? bytes.map(text) : (bytes?.toString() ?? null))
  const found = (await read(topic, shapes.length)).map(({ key, value, headers, timestamp }) => ({
    key: text(key),
    value: text(value),
    headers: Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, text(value)])),
    timestamp,
  }))
  expect('records', found, shapes)
})

check.add('beginning, seek, offsets', async () => {
  const topic = await newTopic()
  await produce(topic, values(100))
  expect('first', (await read(topic, 1))[0].offset, '0')
  for (const target of [90, 3]) expect('offset', (await read(topic, 1, target))[0].offset, String(target))
  const [{ low, high }] = await admin.fetchTopicOffsets(topic)
  expect('low and high', [low, high], ['0', '100'])
})

check.add('offsets for times', async () => {
  const topic = await newTopic()
  const producer = kafka.producer()
  await producer.connect()
  for (let n = 0; n < 10; n++) {
    await producer.send({ topic, messages: [{ value: 'x', partition: 0, timestamp: String(START_MS + n * 1000) }] })
  }
  await producer.disconnect()
  const offset = async (timestamp) => (await admin.fetchTopicOffsetsByTimestamp(topic, timestamp))[0].offset
  expect('at the first', await offset(START_MS), '0')
  expect('between', await offset(START_MS + 3001), '4')
  expect('after all: the end', await offset(START_MS + 9001), '10')
})

check.add('two members share, one takes over', async () => {
  const [topic, group] = [await newTopic(4), unique('group')]
  const first = await member(group, topic)
  await eventually('one has all', () => first.assigned.length === 4)
  const second = await member(group, topic)
  await eventually('each has half', () => first.assigned.length === 2 && second.assigned.length === 2)
  await first.consumer.disconnect()
  await eventually('the other has all', () => second.assigned.length === 4)
  await second.consumer.disconnect()
})

check.add('another member goes on after one is killed', async () => {
  const [topic, group] = [await newTopic(), unique('group')]
  await produce(topic, values(10))
  await memberCommitsAndDies(topic, group)
  const second = await member(group, topic)
  await eventually('the rest', () => second.seen.length === 6)
  expect('first offset of the second member', second.seen[0].message.offset, '4')
  await second.consumer.disconnect()
})

check.add('list, describe, delete groups', async () => {
  const [topic, group] = [await newTopic(), unique('group')]
  await produce(topic, values(5))
  const one = await member(group, topic)
  await eventually('all read', () => one.seen.length === 5)
  const listed = async () => (await admin.listGroups()).groups.some((g) => g.groupId === group)
  expect('listed', await listed(), true)
  const described = (await admin.describeGroups([group])).groups[0]
  expect('state and members', [described.state, described.members.length], ['Stable', 1])
  const { memberAssignment } = described.members[0]
  expect('assignment', AssignerProtocol.MemberAssignment.decode(memberAssignment).assignment, { [topic]: [0] })
  await one.consumer.disconnect()
  const [{ partitions }] = await admin.fetchOffsets({ groupId: group, topics: [topic] })
  expect('committed', partitions[0].offset, '5')
  await admin.setOffsets({ groupId: group, topic, partitions: [{ partition: 0, offset: '2' }] })
  const [again] = await admin.fetchOffsets({ groupId: group, topics: [topic] })
  expect('committed', again.partitions[0].offset, '2')
  await admin.deleteGroups([group])
  expect('listed', await listed(), false)
})

check.add('add partitions', async () => {
  const topic = await newTopic(1)
  await admin.createPartitions({ topicPartitions: [{ topic, count: 4 }] })
  await eventually('four partitions with leaders', async () => {
    const { topics } = await admin.fetchTopicMetadata({ topics: [topic] })
    return topics[0].partitions.filter((p) => p.leader >= 0).length === 4
  })
  expect('offset', await produce(topic, [{ value: 'x', partition: 3 }]), 0)
})

check.add('describe and alter configs', async () => {
  const topic = await newTopic(1, { 'retention.ms': 3600000 })
  const resource = { type: ConfigResourceTypes.TOPIC, name: topic }
  const value = async (name) => {
    const { resources } = await admin.describeConfigs({ includeSynonyms: false, resources: [resource] })
    return resources[0].configEntries.find((entry) => entry.configName === name).configValue
  }
  expect('retention.ms', await value('retention.ms'), '3600000')
  expect('cleanup.policy', await value('cleanup.policy'), 'delete')
  const configEntries = [{ name: 'retention.ms', value: '7200000' }]
  await admin.alterConfigs({ validateOnly: false, resources: [{ ...resource, configEntries }] })
  await eventually('altered', async () => (await value('retention.ms')) === '7200000')
})

check.add('delete records', async () => {
  const topic = await newTopic()
  await produce(topic, values(10))
  // KafkaJS looks the leaders up before it asks for them: this makes it know them.
  await admin.fetchTopicOffsets(topic)
  await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '6' }] })
  const [{ low }] = await admin.fetchTopicOffsets(topic)
  expect('low', low, '6')
  expect('first left', (await read(topic, 4, 6))[0].offset, '6')
})

check.add('delete topic', async () => {
  const topic = await newTopic()
  await admin.deleteTopics({ topics: [topic] })
  await eventually('the topic is gone', async () => !(await admin.listTopics()).includes(topic))
})

check.add('the usual program', async () => {
  // Keyed JSON events, read in groups; the names carry a suffix so that runs do not meet.
  const [events, analytics] = [unique('user-events'), unique('analytics-group')]
  await admin.createTopics({ waitForLeaders: true, topics: [{ topic: events, numPartitions: 1 }] })
  const producer = kafka.producer()
  await producer.connect()
  const sent = Array.from({ length: 10 }, (_, n) => ({ user: `user-${n % 3}`, action: 'click', n }))
  for (const event of sent) {
    await producer.send({ topic: events, messages: [{ key: event.user, value: JSON.stringify(event) }] })
  }
  await producer.disconnect()

  const printed = []
  const print = async ({ message }) => printed.push(`${message.offset} ${message.value}`)
  const consumer = await member(analytics, events, { onMessage: print })
  await eventually('all printed', () => printed.length === 10)
  expect('printed', printed, sent.map((event, n) => `${n} ${JSON.stringify(event)}`))
  expect('keys', consumer.seen.map(({ message }) => message.key.toString()), sent.map((event) => event.user))

  consumer.consumer.seek({ topic: events, partition: 0, offset: '7' })
  await eventually('read again from 7', () => consumer.seen.length === 13)
  expect('offsets after seek', consumer.seen.slice(10).map(({ message }) => message.offset), ['7', '8', '9'])
  await consumer.consumer.disconnect()

  const groups = await Promise.all([1, 2, 3].map((n) => member(unique(`group-${n}`), events)))
  await eventually('each group has all', () => groups.every((g) => g.seen.length === 10))
  await Promise.all(groups.map((g) => g.consumer.disconnect()))

  const shared = unique('shared-group')
  await memberCommitsAndDies(events, shared)
  const heir = await member(shared, events)
  await eventually('the rest', () => heir.seen.length === 6)
  expect('first offset of the heir', heir.seen[0].message.offset, '4')
  await heir.consumer.disconnect()
})

await admin.connect()
await check.run()
