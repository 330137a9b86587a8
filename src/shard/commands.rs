//! What cores ask of each other, and what they answer. Owned data only: it crosses from core to core as it is.

use super::control::{Control, Controlled};
use super::moves::FailedMove;
use super::open::RecoveredPartition;
use crate::base::error::ErrorCode;
use crate::base::ids::{CoreIndex, Offset, PartitionId};
use crate::base::time::{Nanos, TimestampMs};
use crate::cluster::balance::CoreLoad;
use crate::group;
use crate::ports::Piece;
use bytes::Bytes;
use smallvec::SmallVec;
use std::path::PathBuf;
use std::sync::Arc;

/// A client's request that waits on the core that received it; names it to the cores that work on it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RequestId(pub u64);

/// Who asked: where the answer goes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Origin {
    pub core: CoreIndex,
    pub request: RequestId,
}

/// One message from core to core.
pub enum Message<F> {
    Command {
        origin: Origin,
        command: Command,
    },
    Answer {
        request: RequestId,
        answer: Answer<F>,
    },
    /// From the controller's core: these commands are in the metadata log.
    Apply(Arc<Vec<crate::cluster::commands::Command>>),
    /// To the controller's core: the commands last sent are applied here, but for what is named.
    Applied {
        failed: Option<FailedMove>,
    },
    /// To the controller's core: what the partitions of a core were used for.
    Load(CoreLoad),
    /// To the core that gives a partition away: the sender has applied the move, and sends nothing more for it.
    Redirected(PartitionId),
    /// To the core that owns the partition from now on: `from` has released it.
    Move {
        from: CoreIndex,
        id: PartitionId,
        found: Box<RecoveredPartition>,
    },
    /// To the core that gave a partition: it is open here, durably, or cannot be.
    Moved {
        id: PartitionId,
        outcome: Result<(), String>,
    },
}

/// Work for the core that owns what it names.
pub enum Command {
    /// When the batches are durable is the same for acks=1 and acks=all: there is one replica.
    Produce(Vec<ProducePart<Bytes>>),
    Fetch(Fetch),
    /// The fetch of this origin is answered elsewhere: answer with what is there now.
    FinishFetch,
    ListOffsets(Vec<ListOffset>),
    EpochEnds(Vec<EpochEnd>),
    Control(Control),
    /// To the coordinator of the group, or, for the list of all, to each core's.
    Group {
        place: u32,
        request: group::Request,
    },
    /// Of these partitions, or of all that the core owns.
    PartitionSizes(Option<Vec<PartitionId>>),
    DiskSpace,
    DeleteRecords(Vec<DeleteRecords>),
}

/// What the work came to.
pub enum Answer<F> {
    /// Of some parts of a `Command::Produce`: each comes once, when it is durable or refused.
    Produce(ProduceResults),
    Fetch {
        core: CoreIndex,
        parts: Vec<Fetched<F>>,
    },
    ListOffsets(Vec<ListedOffset>),
    EpochEnds(Vec<EndedEpoch>),
    Control(Controlled),
    /// `place` is the command's, so that one request can ask about several groups.
    Group {
        place: u32,
        reply: group::Reply,
    },
    /// A request that waited for a producer id has one, or will get none.
    ProducerId(Result<i64, ErrorCode>),
    PartitionSizes(Vec<PartitionSize>),
    /// Each data directory, with what is free there; `None` where that cannot be read.
    DiskSpace(Vec<(PathBuf, Option<u64>)>),
    /// One part of a `Command::DeleteRecords`; each has an answer of its own.
    DeletedRecords(DeletedRecords),
}

/// What was produced to one partition.
pub struct ProducePart<R> {
    /// Its place in the client's request.
    pub index: u32,
    pub partition: PartitionId,
    /// As received: one batch, not yet checked.
    pub records: R,
}

/// What became of the parts of a Produce. Mostly there is one.
pub type ProduceResults = SmallVec<[Produced; 1]>;

/// The end of one partition's part of a Produce.
#[derive(Clone, Debug)]
pub struct Produced {
    pub index: u32,
    pub error: ErrorCode,
    pub message: Option<&'static str>,
    /// -1 on an error.
    pub base_offset: Offset,
    /// -1 unless the topic stamps records on append.
    pub log_append_time_ms: TimestampMs,
    pub log_start_offset: Offset,
}

impl Produced {
    pub fn refused(index: u32, error: ErrorCode, message: Option<&'static str>) -> Produced {
        Produced { index, error, message, base_offset: -1, log_append_time_ms: -1, log_start_offset: -1 }
    }
}

/// Reads from partitions of one core.
#[derive(Clone, Debug)]
pub struct Fetch {
    pub parts: Vec<FetchPart>,
    pub bytes_min: u64,
    /// For all parts together; the first batch of the first part that has any is given whole, however large.
    pub bytes_max: u64,
    /// Answer by then even with less than `bytes_min`.
    pub deadline: Nanos,
}

impl Fetch {
    /// Reads nothing.
    pub fn nothing() -> Fetch {
        Fetch { parts: vec![], bytes_min: 0, bytes_max: 0, deadline: Nanos(0) }
    }
}

#[derive(Clone, Debug)]
pub struct FetchPart {
    pub index: u32,
    pub partition: PartitionId,
    pub offset: Offset,
    pub bytes_max: u64,
    /// What the client believes to be the leader's epoch; -1: it does not know.
    pub current_leader_epoch: i32,
}

/// What one partition has to offer.
#[derive(Debug)]
pub struct Fetched<F> {
    pub index: u32,
    pub error: ErrorCode,
    /// -1 on an error that hides it.
    pub high_watermark: Offset,
    pub log_start_offset: Offset,
    pub pieces: Vec<Piece<F>>,
}

impl<F> Fetched<F> {
    pub fn refused(index: u32, error: ErrorCode) -> Fetched<F> {
        Fetched { index, error, high_watermark: -1, log_start_offset: -1, pieces: vec![] }
    }

    pub fn bytes(&self) -> u64 {
        self.pieces.iter().map(Piece::bytes).sum()
    }
}

/// Which offset of a partition is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OffsetSpec {
    Earliest,
    Latest,
    /// The first record with the largest timestamp (KIP-734).
    MaxTimestamp,
    /// The first record at or after this time.
    At(TimestampMs),
}

#[derive(Clone, Debug)]
pub struct ListOffset {
    pub index: u32,
    pub partition: PartitionId,
    pub spec: OffsetSpec,
    pub current_leader_epoch: i32,
}

#[derive(Clone, Debug)]
pub struct ListedOffset {
    pub index: u32,
    pub error: ErrorCode,
    /// -1: no such record.
    pub offset: Offset,
    /// -1: none, or not asked for.
    pub timestamp: TimestampMs,
    pub leader_epoch: i32,
}

/// Where did `leader_epoch` end (KIP-101, KIP-320)?
#[derive(Clone, Debug)]
pub struct EpochEnd {
    pub index: u32,
    pub partition: PartitionId,
    pub current_leader_epoch: i32,
    pub leader_epoch: i32,
}

#[derive(Clone, Debug)]
pub struct EndedEpoch {
    pub index: u32,
    pub error: ErrorCode,
    /// -1: no such epoch here.
    pub leader_epoch: i32,
    pub end_offset: Offset,
}

/// What a partition takes of a disk.
#[derive(Clone, Debug)]
pub struct PartitionSize {
    pub partition: PartitionId,
    /// Index of the data directory it is in.
    pub data_dir: usize,
    pub bytes: u64,
}

/// A partition whose records before an offset are to go.
#[derive(Clone, Debug)]
pub struct DeleteRecords {
    pub index: u32,
    pub partition: PartitionId,
    /// The first that stays; -1: the high watermark.
    pub before: Offset,
}

#[derive(Clone, Debug)]
pub struct DeletedRecords {
    pub index: u32,
    pub error: ErrorCode,
    /// Where the partition starts now; -1 on an error.
    pub low_watermark: Offset,
}

impl DeletedRecords {
    pub fn refused(index: u32, error: ErrorCode) -> DeletedRecords {
        DeletedRecords { index, error, low_watermark: -1 }
    }
}
