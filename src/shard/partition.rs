//! One partition on the core that owns it: the pure parts that decide about it, and what waits for it.

use super::produce::UndurablePart;
use super::snapshots::Growth;
use crate::base::error::ErrorCode;
use crate::cluster::configs::TopicConfig;
use crate::log::{LogIndex, PartitionSettings};
use crate::partition::append::{AppendRules, AppendState, TimestampType};
use crate::partition::epochs::LeaderEpochs;
use crate::partition::waiters::OffsetWaiters;
use crate::partition::watermark::{FlushPolicy, Watermark};

pub(super) struct Partition {
    pub log: LogIndex,
    pub state: AppendState,
    pub watermark: Watermark,
    pub rules: AppendRules,
    pub epochs: LeaderEpochs,
    pub producing: OffsetWaiters<UndurablePart>,
    /// What it was used for since that was last told: see `balance`.
    pub work: u64,
    /// Of a log whose state is in memory.
    pub growth: Option<Growth>,
}

impl Partition {
    /// What a client's idea of the leader epoch deserves (KIP-320); `None`: it is right, or has none.
    pub fn check_epoch(&self, current_leader_epoch: i32) -> Option<ErrorCode> {
        let epoch = self.state.leader_epoch();
        match current_leader_epoch {
            -1 => None,
            stale if stale < epoch => Some(ErrorCode::FencedLeaderEpoch),
            ahead if ahead > epoch => Some(ErrorCode::UnknownLeaderEpoch),
            _ => None,
        }
    }
}

pub(super) fn append_rules(config: &TopicConfig) -> AppendRules {
    AppendRules {
        message_bytes_max: config.max_message_bytes,
        timestamp_type: if config.log_append_time { TimestampType::LogAppendTime } else { TimestampType::CreateTime },
        timestamp_before_max_ms: config.timestamp_before_max_ms,
        timestamp_after_max_ms: config.timestamp_after_max_ms,
    }
}

pub(super) fn flush_policy(config: &TopicConfig) -> FlushPolicy {
    FlushPolicy::of(config.flush_messages, config.flush_ms)
}

/// How the log keeps a topic's partitions. Segments are deleted by retention only where the policy says `delete`.
pub(super) fn log_settings(config: &TopicConfig) -> PartitionSettings {
    PartitionSettings {
        segment_bytes: u64::from(config.segment_bytes),
        segment_ms: config.segment_ms,
        index_interval_bytes: config.index_interval_bytes,
        retention_ms: config.retention_ms.filter(|_| config.cleanup_delete),
        retention_bytes: config.retention_bytes.filter(|_| config.cleanup_delete),
        delete_delay_ms: config.file_delete_delay_ms,
    }
}
