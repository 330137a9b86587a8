//! A log with one topic on a simulated machine, for tests that look at one thing each.

use super::disk::SimDisk;
use super::world::World;
use ringlog::base::batch::BatchHeader;
use ringlog::base::ids::{CoreIndex, Offset, PartitionId, TopicId};
use ringlog::base::record::BatchBuilder;
use ringlog::log::{
    CoreLog, Damage, LogIndex, LogSettings, Opening, PartitionSettings, Piece, ReadError, Recovered, Refused,
    ScannedJournal, partition_dir_name, recover, scan,
};
use ringlog::ports::Disk;
use std::path::{Path, PathBuf};

pub const DATA: &str = "/data/partitions";
pub const JOURNAL: &str = "/data/journal-of-core-0";

pub fn id(index: i32) -> PartitionId {
    PartitionId { topic: TopicId([3; 16]), index }
}

pub fn partition_dir(index: i32) -> PathBuf {
    Path::new(DATA).join(partition_dir_name("topic", id(index)))
}

/// A machine and the log on it.
pub struct Bench {
    pub world: World,
    pub settings: LogSettings,
    pub partition: PartitionSettings,
}

impl Bench {
    pub fn new(seed: u64) -> Bench {
        let settings = LogSettings {
            journal_file_bytes: 256 << 10,
            journal_bytes: 1 << 20,
            tail_bytes: 1 << 20,
            flush_age_ms: 50,
            ..LogSettings::default()
        };
        Bench {
            world: World::new(seed),
            settings,
            partition: PartitionSettings { delete_delay_ms: 20, ..PartitionSettings::default() },
        }
    }

    pub fn log(&self) -> CoreLog<SimDisk> {
        self.world.log.clone().expect("opened")
    }

    pub fn disk(&self) -> SimDisk {
        self.world.disk.clone()
    }

    pub fn scan(&mut self) -> ScannedJournal {
        let disk = self.disk();
        self.world.run(scan(&disk, Path::new(JOURNAL), self.settings.recovery_bytes_max)).expect("scan")
    }

    /// What recovery makes of what is on the disk.
    pub fn recover(&mut self) -> Vec<(PartitionId, Result<Recovered, Damage>)> {
        let (scanned, disk) = (self.scan(), self.disk());
        self.world.run(recover(&disk, Path::new(DATA), &scanned, |_| true, |_, _| {})).expect("recover")
    }

    /// Opens the log, without any partition.
    pub fn open(&mut self) -> CoreLog<SimDisk> {
        let (scanned, disk) = (self.scan(), self.disk());
        let open = CoreLog::open(disk, self.settings.clone(), CoreIndex(0), &scanned, 77);
        let log = self.world.run(open).expect("open");
        self.world.log = Some(log.clone());
        log
    }

    pub fn create(&mut self, index: i32) -> LogIndex {
        let opening = Opening { dir: partition_dir(index), settings: self.partition };
        let log = self.log();
        self.world.run(log.create(id(index), opening, 0, b"")).expect("create")
    }

    /// Recovers and opens everything that is whole.
    pub fn restart(&mut self) -> Vec<LogIndex> {
        let recovered = self.recover();
        let log = self.open();
        let whole: Vec<Recovered> = recovered.into_iter().filter_map(|(_, recovered)| recovered.ok()).collect();
        let settings = self.partition;
        let open = |recovered| self.world.run(log.open_partition(recovered, settings, b"")).expect("open partition");
        let logs = whole.into_iter().map(open).collect();
        self.world.run(log.until_durable()).expect("durable");
        logs
    }

    pub fn crash(&mut self) {
        self.world.crash();
    }

    /// Appends a batch of `records` with values of `bytes` each, at `timestamp`.
    pub fn try_append(&mut self, index: LogIndex, records: usize, bytes: usize, timestamp: i64) -> Result<(), Refused> {
        let mut builder = BatchBuilder::new(timestamp);
        for _ in 0..records {
            builder.push(timestamp, None, Some(&self.world.rng.bytes(bytes)));
        }
        let batch = builder.finish();
        let header = BatchHeader::read(&batch).expect("a header");
        let (_, end) = self.log().offsets(index).expect("open");
        self.log().append(index, &header, &batch, end, 1)
    }

    /// As `try_append`, once there is room.
    pub fn append(&mut self, index: LogIndex, records: usize, bytes: usize) {
        let timestamp = self.world.now.wall_ms;
        for _ in 0..100_000 {
            match self.try_append(index, records, bytes, timestamp) {
                Ok(()) => return,
                Err(Refused::Backlog) => self.world.turn(),
                Err(refused) => panic!("{refused:?}"),
            }
        }
        panic!("no room ever");
    }

    pub fn until_durable(&mut self) {
        let log = self.log();
        self.world.run(log.until_durable()).expect("durable");
    }

    /// Lets time pass until everything is in the segments.
    pub fn flush(&mut self) {
        self.until_durable();
        for _ in 0..20 {
            self.world.pass_ms(100);
            self.world.settle();
        }
    }

    pub fn read(&mut self, index: LogIndex, offset: Offset, max_bytes: usize) -> Result<Vec<u8>, ReadError> {
        let (log, disk) = (self.log(), self.disk());
        let read = log.read(index, offset, max_bytes, Offset::MAX, true)?;
        let mut bytes = Vec::new();
        for piece in read.pieces {
            match piece {
                Piece::Memory(view) => bytes.extend_from_slice(&view),
                Piece::File { file, position, bytes: length, .. } => {
                    let read = self.world.run(disk.read(&file, position, length as usize)).expect("read");
                    bytes.extend_from_slice(&read);
                }
            }
        }
        Ok(bytes)
    }

    /// All files below `dir` whose name ends like this, with their content.
    pub fn files(&self, dir: &Path, ending: &str) -> Vec<(PathBuf, Vec<u8>)> {
        let files = self.world.disk.0.borrow().storage.files(dir);
        files.into_iter().filter(|(path, _)| path.to_string_lossy().ends_with(ending)).collect()
    }

    pub fn edit(&self, path: &Path, edit: impl FnOnce(&mut Vec<u8>)) {
        self.world.disk.0.borrow_mut().storage.edit(path, edit);
    }

    pub fn lose(&self, path: &Path) {
        self.world.disk.0.borrow_mut().storage.lose(path);
    }
}
