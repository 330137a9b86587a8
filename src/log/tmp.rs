//! temporary
use super::*;
use crate::ports::Disk;
impl<D: Disk> CoreLog<D> {
    pub async fn drop_partition(&self, _log: LogIndex) -> Result<(), LogError> { Ok(()) }
    pub async fn find_by_timestamp(&self, _log: LogIndex, _t: i64, _limit: Offset) -> Result<Option<bytes::Bytes>, LogError> { Ok(None) }
    pub async fn find_max_timestamp(&self, _log: LogIndex, _limit: Offset) -> Result<Option<bytes::Bytes>, LogError> { Ok(None) }
}
