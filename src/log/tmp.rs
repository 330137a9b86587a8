//! temporary
use super::*;
use crate::ports::Disk;
impl<D: Disk> CoreLog<D> {
    pub async fn drop_partition(&self, _log: LogIndex) -> Result<(), LogError> {
        Ok(())
    }
}
