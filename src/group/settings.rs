//! What an operator may set about groups: Kafka's names, units and defaults. Reads no configuration; `cli` fills it.

/// Settings of the group coordinator, the same on every core.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupSettings {
    /// `group.min.session.timeout.ms` (6 000): a member asking for less gets `InvalidSessionTimeout`.
    pub session_timeout_ms_min: i32,
    /// `group.max.session.timeout.ms` (1 800 000): a member asking for more gets `InvalidSessionTimeout`.
    pub session_timeout_ms_max: i32,
    /// `group.initial.rebalance.delay.ms` (3 000): how long an empty group waits for more members to come before its first
    /// generation. Each newcomer prolongs it by as much again, at most up to the rebalance timeout. 0 = no wait.
    pub initial_rebalance_delay_ms: u32,
    /// `group.max.size` (2 147 483 647): most members of one group.
    pub group_members_max: usize,
    /// `offset.metadata.max.bytes` (4 096): longest metadata string of one committed offset. A record can hold no more
    /// than [`crate::base::limits::GROUP_STRING_BYTES_MAX`], whatever is set here.
    pub offset_metadata_bytes_max: usize,
    /// `offsets.retention.minutes` (10 080 = 7 days): how long offsets outlive the last member (KIP-211).
    pub offsets_retention_minutes: u32,
    /// `offsets.retention.check.interval.ms` (600 000): how often the offsets of a partition are looked through for old ones.
    pub offsets_retention_check_interval_ms: u32,
    /// `offsets.topic.num.partitions` (50): partitions of `__consumer_offsets`. At least 1. Once the topic exists its
    /// own number counts.
    pub offsets_partition_count: i32,
}

impl Default for GroupSettings {
    fn default() -> GroupSettings {
        GroupSettings {
            session_timeout_ms_min: 6_000,
            session_timeout_ms_max: 1_800_000,
            initial_rebalance_delay_ms: 3_000,
            group_members_max: i32::MAX as usize,
            offset_metadata_bytes_max: 4_096,
            offsets_retention_minutes: 10_080,
            offsets_retention_check_interval_ms: 600_000,
            offsets_partition_count: 50,
        }
    }
}

impl GroupSettings {
    pub(super) fn offsets_retention_ms(&self) -> i64 {
        i64::from(self.offsets_retention_minutes) * 60_000
    }
}
