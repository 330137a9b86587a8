//! Every bound that is not a setting, in one place, with its unit in its name and its relations asserted.

/// Smallest frame that can hold a request header: key, version, correlation id. Shorter ones close the connection.
pub const REQUEST_BYTES_MIN: usize = 8;

/// Largest request frame by default (`socket.request.max.bytes`, Kafka's default).
pub const REQUEST_BYTES_MAX: usize = 100 << 20;

/// Largest request frame of all APIs but Produce, which alone carries records. Kafka has one bound for all, but it does not make tables
/// of what it reads. This holds a Fetch of every partition that a broker may have, at 33 bytes each and their topics' ids.
pub const OTHER_REQUEST_BYTES_MAX: usize = 8 << 20;

/// O_DIRECT writes start, end and lie in memory at multiples of this: the largest logical block of common disks.
pub const DISK_BLOCK_BYTES: usize = 4096;

/// Largest append to a journal in one write; larger ones gain nothing.
pub const COMMIT_BYTES_MAX: usize = 1 << 20;

/// Segments are written in pieces of this size where there is that much.
pub const SEGMENT_PIECE_BYTES: usize = 256 << 10;

/// One journal file. A record never spans two, so it must hold the largest request.
pub const JOURNAL_FILE_BYTES: usize = 128 << 20;

/// What a journal adds to the largest record: its header, rounded up to whole blocks at both ends.
pub const JOURNAL_OVERHEAD_BYTES_MAX: usize = 4 * DISK_BLOCK_BYTES;

/// A topic's name is at most this long (Kafka's `Topic.MAX_NAME_LENGTH`, so that a directory can bear it).
pub const TOPIC_NAME_BYTES_MAX: usize = 249;

/// Longest string on the wire; Kafka refuses longer ones in every version, compact or not.
pub const STRING_BYTES_MAX: usize = i16::MAX as usize;

/// Decoding a request may allocate this much, whatever its size ...
pub const DECODE_BYTES_BASE: usize = 64 << 10;

/// ... and for each byte of the frame this much more. The densest element is an empty string: 1 byte on the wire, 16 in memory.
pub const DECODE_BYTES_PER_BYTE: usize = 16;

/// ... and never more than this: a Produce of 100 MiB is a few large batches, not 50 million empty partitions.
/// One partition of a Fetch takes about 64 bytes, so that one of all partitions of a broker takes half of it.
pub const DECODE_BYTES_MAX: usize = 32 << 20;

/// Producers whose sequence numbers one partition remembers; beyond that the longest silent are forgotten. A forgotten producer
/// goes on undisturbed but its retries are not recognised any more. About 3 MiB of a core's memory when full.
pub const PRODUCERS_PER_PARTITION_MAX: usize = 16_384;

/// Partitions that one broker takes (10 000 are meant to be ordinary). Topics beyond are refused when they are created.
pub const PARTITIONS_PER_BROKER_MAX: usize = 200_000;

/// One value of a topic's or broker's configuration, in bytes.
pub const CONFIG_VALUE_BYTES_MAX: usize = 32 << 10;

/// Longest group id, client id, instance id, protocol name or offset metadata that the group coordinator takes in. Records of
/// `__consumer_offsets` hold texts with an i16 length.
pub const GROUP_STRING_BYTES_MAX: usize = 16 << 10;

/// A member id is a client id or an instance id, a dash and a UUID.
const MEMBER_ID_BYTES_MAX: usize = GROUP_STRING_BYTES_MAX + 1 + 36;

const _: () = assert!(MEMBER_ID_BYTES_MAX <= i16::MAX as usize);
const _: () = assert!(TOPIC_NAME_BYTES_MAX <= i16::MAX as usize);
const _: () = assert!(OTHER_REQUEST_BYTES_MAX >= PARTITIONS_PER_BROKER_MAX * 40);
const _: () = assert!(DECODE_BYTES_MAX >= PARTITIONS_PER_BROKER_MAX * 160);
const _: () = assert!(JOURNAL_FILE_BYTES >= REQUEST_BYTES_MAX + JOURNAL_OVERHEAD_BYTES_MAX);
const _: () = assert!(COMMIT_BYTES_MAX.is_multiple_of(DISK_BLOCK_BYTES));
const _: () = assert!(SEGMENT_PIECE_BYTES.is_multiple_of(DISK_BLOCK_BYTES));
const _: () = assert!(JOURNAL_FILE_BYTES.is_multiple_of(COMMIT_BYTES_MAX));
