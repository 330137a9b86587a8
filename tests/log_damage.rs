//! Goal: what is damaged or missing on the disk is named or healed, one case at a time, and never served as if it were whole.

mod sim;

use ringlog::base::batch;
use ringlog::base::ids::{CoreIndex, Offset, PartitionId};
use ringlog::log::{
    CoreLog, LogError, ReadError, Refused, Replay, recover, recover_from_segments, remove_leftovers, scan,
};
use ringlog::ports::DiskCompletion;
use sim::bench::{Bench, DATA, JOURNAL, id, partition_dir};
use std::io;
use std::path::Path;

/// Position of the `n`th record of this kind of partition 0 in a journal file: its header has the topic at byte 16.
fn find_record(file: &[u8], kind: u8, n: usize) -> usize {
    let heads = (4096..file.len() - 64).step_by(8).filter(|at| &file[*at..at + 4] == b"RLr1" && file[at + 60] == kind);
    heads.into_iter().nth(n).expect("such a record")
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// Renews the CRC of the record at `at`, of whose payload it covers `prefix` bytes at most.
fn seal_record(file: &mut [u8], at: usize, prefix: usize) {
    let end = at + 64 + prefix.min(u32_at(file, at + 44) as usize);
    let crc = crc32c::crc32c_append(u32_at(file, 20), &file[at + 8..end]);
    file[at + 4..at + 8].copy_from_slice(&crc.to_le_bytes());
}

fn bench_with(batches: usize) -> (Bench, ringlog::log::LogIndex) {
    let mut bench = Bench::new(1);
    bench.open();
    let index = bench.create(0);
    for _ in 0..batches {
        bench.append(index, 2, 500);
        bench.until_durable();
    }
    (bench, index)
}

fn end_of(bench: &mut Bench) -> Offset {
    let recovered = bench.recover();
    assert_eq!(recovered.len(), 1);
    recovered[0].1.as_ref().expect("no damage").end_offset
}

#[test]
fn a_torn_last_commit_is_cut_and_is_no_damage() {
    let (mut bench, _) = bench_with(5);
    bench.crash();
    let (path, content) = bench.files(Path::new(JOURNAL), "journal-0").remove(0);
    // The fifth batch was never acknowledged if its commit is torn: nothing behind it says so.
    let last = find_record(&content, 1, 4);
    bench.edit(&path, |bytes| bytes[last + 64 + 200..last + 64 + 300].fill(0));
    assert_eq!(end_of(&mut bench), 8);
    assert!(bench.scan().damage.is_empty());
}

#[test]
fn a_damaged_batch_in_the_middle_of_the_journal_is_named_with_its_partition() {
    let (mut bench, _) = bench_with(5);
    bench.crash();
    let (path, content) = bench.files(Path::new(JOURNAL), "journal-0").remove(0);
    let third = find_record(&content, 1, 2);
    bench.edit(&path, |bytes| bytes[third + 64 + 200] ^= 1);
    let scanned = bench.scan();
    assert_eq!(scanned.damage.len(), 1);
    assert_eq!((scanned.damage[0].position, scanned.damage[0].partition), (third as u64, Some(id(0))));
    let recovered = bench.recover();
    let damage = recovered[0].1.as_ref().expect_err("damaged");
    assert!(damage.what.contains("offset 4"), "{damage}");
}

#[test]
fn a_damaged_record_header_makes_every_partition_that_may_be_meant_unavailable() {
    let (mut bench, _) = bench_with(3);
    let other = bench.create(1);
    bench.append(other, 1, 100);
    bench.until_durable();
    bench.crash();
    let (path, content) = bench.files(Path::new(JOURNAL), "journal-0").remove(0);
    let second = find_record(&content, 1, 1);
    bench.edit(&path, |bytes| bytes[second + 9] ^= 1);
    let recovered = bench.recover();
    assert!(recovered[0].1.is_err(), "its checkpoint is before the gap");
    assert!(recovered[1].1.is_ok(), "its checkpoint is behind the gap");
}

#[test]
fn a_checkpoint_that_names_another_directory_is_damage() {
    let (mut bench, index) = bench_with(3);
    bench.log().checkpoint(index, b"").expect("room");
    bench.append(index, 2, 500);
    bench.until_durable();
    bench.crash();
    let (path, content) = bench.files(Path::new(JOURNAL), "journal-0").remove(0);
    let second = find_record(&content, 2, 1);
    bench.edit(&path, |bytes| {
        let name = bytes[second..].windows(8).position(|name| name == b"topic-0-").expect("the directory");
        bytes[second + name + 6] = b'1';
        seal_record(bytes, second, usize::MAX);
    });
    let recovered = bench.recover();
    assert_eq!(recovered.len(), 1, "{recovered:?}");
    let damage = recovered[0].1.as_ref().expect_err("damaged");
    assert_eq!((damage.position, damage.partition), (second as u64, Some(id(0))));
}

#[test]
fn a_journal_whose_sessions_have_no_order_is_not_read() {
    let (mut bench, _) = bench_with(2);
    bench.crash();
    bench.restart();
    bench.crash();
    let disk = bench.disk();
    let scan_all = |bench: &mut Bench| bench.world.run(scan(&disk, Path::new(JOURNAL), usize::MAX));
    assert!(scan_all(&mut bench).is_ok(), "two sessions");
    let (path, content) = bench.files(Path::new(JOURNAL), "journal-0").remove(0);
    // Where the header has its file's sequence and its session.
    assert_eq!((u32_at(&content, 12), u32_at(&content, 16)), (1, 1));
    for (at, forged) in [(16, 2), (16, u32::MAX), (12, u32::MAX)] {
        bench.edit(&path, |bytes| {
            bytes.copy_from_slice(&content);
            bytes[at..at + 4].copy_from_slice(&forged.to_le_bytes());
            let crc = crc32c::crc32c(&bytes[..32]);
            bytes[32..36].copy_from_slice(&crc.to_le_bytes());
        });
        let damage = damage_in(scan_all(&mut bench));
        assert_eq!(damage.position, 0, "{at} {forged}: {damage}");
    }
}

#[test]
fn an_offset_that_is_appended_twice_is_damage_and_nobody_is_told_of_the_second_time() {
    let (mut bench, _) = bench_with(4);
    bench.crash();
    let (path, content) = bench.files(Path::new(JOURNAL), "journal-0").remove(0);
    let third = find_record(&content, 1, 2);
    bench.edit(&path, |bytes| {
        bytes[third + 32..third + 40].copy_from_slice(&2i64.to_le_bytes());
        bytes[third + 64..third + 72].copy_from_slice(&2i64.to_be_bytes());
        seal_record(bytes, third, 21);
    });
    let (scanned, disk, mut told) = (bench.scan(), bench.disk(), Vec::new());
    assert!(scanned.damage.is_empty(), "{:?}", scanned.damage);
    let replay = |_, replay: Replay<'_>| match replay {
        Replay::Checkpoint(_) => {}
        Replay::Batch(header, _) => told.push(header.base_offset),
    };
    let recovered = bench.world.run(recover(&disk, Path::new(DATA), &scanned, |_| true, replay)).expect("recover");
    assert_eq!(told, [0, 2]);
    assert!(recovered[0].1.as_ref().expect_err("damaged").what.contains("offset 2"));
}

#[test]
fn damage_of_what_is_in_the_segments_and_checkpointed_since_harms_nobody() {
    let (mut bench, index) = bench_with(5);
    bench.flush();
    bench.log().checkpoint(index, b"later").expect("room");
    bench.append(index, 1, 100);
    bench.until_durable();
    bench.append(index, 1, 100);
    bench.until_durable();
    bench.crash();
    let (path, content) = bench.files(Path::new(JOURNAL), "journal-0").remove(0);
    let third = find_record(&content, 1, 2);
    bench.edit(&path, |bytes| bytes[third + 30] ^= 1);
    assert_eq!(bench.scan().damage.len(), 1);
    assert_eq!(end_of(&mut bench), 12);
}

#[test]
fn stale_records_of_a_recycled_file_are_not_read() {
    let (mut bench, index) = bench_with(0);
    let mut appended = 0;
    while bench.log().counters().journal.files_recycled < 6 {
        bench.append(index, 1, 3000);
        appended += 1;
        bench.until_durable();
    }
    bench.crash();
    let scanned = bench.scan();
    assert!(scanned.damage.is_empty(), "{:?}", scanned.damage);
    assert_eq!(end_of(&mut bench), appended);
}

#[test]
fn an_empty_segment_file_left_by_a_crash_is_used_again() {
    let (mut bench, _) = bench_with(0);
    bench.until_durable();
    bench.crash();
    // As if the crash had come between the making of the file and its first write.
    let logs = bench.restart();
    bench.append(logs[0], 1, 100);
    bench.flush();
    let (path, _) = bench.files(&partition_dir(0), ".log").remove(0);
    bench.crash();
    bench.edit(&path, Vec::clear);
    let logs = bench.restart();
    let bytes = bench.read(logs[0], 0, 1000).expect("from the journal");
    assert_eq!(batch::check_stored(&bytes).expect("whole").base_offset, 0);
    bench.append(logs[0], 1, 100);
    bench.flush();
    let log = bench.log();
    bench.world.run(log.verify(logs[0])).expect("whole");
}

#[test]
fn a_torn_segment_tail_is_written_again_from_the_journal() {
    let (mut bench, index) = bench_with(20);
    bench.flush();
    bench.append(index, 1, 100);
    bench.until_durable();
    bench.crash();
    let (path, content) = bench.files(&partition_dir(0), ".log").remove(0);
    bench.edit(&path, |bytes| bytes[content.len() - 9000..].fill(0x55));
    let logs = bench.restart();
    let log = bench.log();
    bench.world.run(log.verify(logs[0])).expect("whole again");
    assert_eq!(log.offsets(logs[0]), Some((0, 41)));
}

#[test]
fn a_flipped_bit_in_a_sealed_segment_is_found_and_named() {
    let mut bench = Bench::new(2);
    bench.partition.segment_bytes = 20_000;
    bench.open();
    let index = bench.create(0);
    for _ in 0..60 {
        bench.append(index, 1, 1000);
    }
    bench.flush();
    let log = bench.log();
    let whole = bench.world.run(log.verify(index)).expect("whole");
    assert!(whole > 60_000);
    let (path, _) = bench.files(&partition_dir(0), ".log").remove(1);
    bench.edit(&path, |bytes| bytes[9000] ^= 4);
    match bench.world.run(log.verify(index)) {
        Err(LogError::Damaged(damage)) => {
            assert_eq!((damage.path, damage.partition), (path.display().to_string(), Some(id(0))));
            assert!(damage.position <= 9000 && damage.position > 7000);
        }
        other => panic!("{other:?}"),
    }
}

/// A partition of three segments or more, all of whose sealed ones have left memory.
fn bench_with_sealed_segments() -> (Bench, ringlog::log::LogIndex) {
    let mut bench = Bench::new(6);
    bench.partition.segment_bytes = 10_000;
    bench.open();
    let index = bench.create(0);
    for _ in 0..40 {
        bench.append(index, 1, 1000);
    }
    let log = bench.log();
    bench.world.run(log.close(|_| Vec::new())).expect("close");
    bench.crash();
    let index = bench.restart()[0];
    (bench, index)
}

fn damage_in<T: std::fmt::Debug>(result: Result<T, LogError>) -> ringlog::log::Damage {
    match result {
        Err(LogError::Damaged(damage)) => damage,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_sealed_segment_that_lost_its_end_is_named_and_never_read_as_empty() {
    let batch_bytes = 1000 + 61 + 9;
    for kept in [0, 4096, 4096 + 3 * batch_bytes] {
        let (mut bench, _) = bench_with_sealed_segments();
        bench.crash();
        let (path, _) = bench.files(&partition_dir(0), ".log").remove(0);
        bench.edit(&path, |bytes| bytes.truncate(kept));
        let index = bench.restart()[0];
        let log = bench.log();
        assert_eq!(bench.read(index, 0, 5_000), Err(ReadError::NotLoaded), "{kept} bytes kept");
        let damage = damage_in(bench.world.run(log.load(index, 0, Offset::MAX)));
        assert_eq!(damage.path, path.display().to_string());
        damage_in(bench.world.run(log.verify(index)));
    }
}

#[test]
fn a_flipped_bit_in_a_stored_offset_is_found_though_no_crc_covers_it() {
    let (mut bench, index) = bench_with_sealed_segments();
    let (path, content) = bench.files(&partition_dir(0), ".log").remove(0);
    let last = batch::batches(&content[4096..]).fold((0, 0), |(_, end), (_, batch)| (end, end + batch.len())).0;
    bench.edit(&path, |bytes| bytes[4096 + last + 3] ^= 1);
    let log = bench.log();
    let damage = damage_in(bench.world.run(log.verify(index)));
    assert_eq!((damage.path, damage.position), (path.display().to_string(), 4096 + last as u64));
}

#[test]
fn a_partition_that_lost_its_first_segment_is_not_opened() {
    let (mut bench, _) = bench_with_sealed_segments();
    bench.crash();
    let (path, _) = bench.files(&partition_dir(0), ".log").remove(0);
    bench.lose(&path);
    let recovered = bench.recover().remove(0).1.expect("the end is whole");
    let log = bench.open();
    let settings = bench.partition;
    let damage = damage_in(bench.world.run(log.open_partition(recovered, settings, b"")));
    assert!(damage.what.contains("missing"), "{damage}");
}

#[test]
fn a_truncation_at_a_damaged_place_changes_nothing() {
    let (mut bench, index) = bench_with_sealed_segments();
    let (path, _) = bench.files(&partition_dir(0), ".log").remove(0);
    // The length of the second batch.
    let second = 4096 + 1070;
    bench.edit(&path, |bytes| bytes[second + 9] ^= 0x40);
    let log = bench.log();
    let before = log.offsets(index);
    let damage = damage_in(bench.world.run(log.truncate(index, 3, |_| Vec::new())));
    assert_eq!(damage.path, path.display().to_string());
    assert_eq!(log.offsets(index), before);
    bench.append(index, 1, 10);
    bench.until_durable();
}

#[test]
fn a_missing_or_wrong_index_is_rebuilt() {
    for wrong in [false, true] {
        let mut bench = Bench::new(3);
        bench.partition.segment_bytes = 30_000;
        bench.open();
        let index = bench.create(0);
        for _ in 0..60 {
            bench.append(index, 1, 1000);
        }
        let log = bench.log();
        bench.world.run(log.close(|_| Vec::new())).expect("close");
        bench.crash();
        let indexes = bench.files(&partition_dir(0), ".index");
        assert!(indexes.len() >= 2, "one for each sealed segment");
        for (path, _) in indexes {
            match wrong {
                true => bench.edit(&path, |bytes| bytes.iter_mut().skip(50).take(1).for_each(|byte| *byte ^= 1)),
                false => bench.lose(&path),
            }
        }
        let index = bench.restart()[0];
        let log = bench.log();
        assert_eq!(bench.read(index, 10, 100), Err(ReadError::NotLoaded));
        bench.world.run(log.load(index, 10, Offset::MAX)).expect("load");
        let bytes = bench.read(index, 10, 100).expect("loaded");
        let found: Vec<Offset> = batch::batches(&bytes).map(|(header, _)| header.base_offset).collect();
        assert!(found.contains(&10), "{found:?}");
        assert!(log.counters().segments.indexes_rebuilt > 0);
    }
}

#[test]
fn a_missing_segment_is_reported_and_not_begun_anew() {
    let (mut bench, _) = bench_with(5);
    bench.flush();
    let log = bench.log();
    bench.world.run(log.close(|_| Vec::new())).expect("close");
    bench.crash();
    // Not closed in order any more, so that recovery looks.
    let logs = bench.restart();
    assert_eq!(logs.len(), 1);
    bench.crash();
    let (path, _) = bench.files(&partition_dir(0), ".log").remove(0);
    bench.lose(&path);
    let damage = bench.recover().remove(0).1.expect_err("missing");
    assert!(damage.what.contains("missing") || damage.what.contains("ends at"), "{damage}");
}

#[test]
fn without_a_journal_the_segments_tell() {
    let (mut bench, _) = bench_with(10);
    bench.flush();
    bench.crash();
    for (path, _) in bench.files(Path::new(JOURNAL), "") {
        bench.lose(&path);
    }
    assert!(bench.recover().is_empty());
    let disk = bench.disk();
    let recovered = bench.world.run(recover_from_segments(&disk, &partition_dir(0), id(0))).expect("segments");
    assert_eq!((recovered.start_offset, recovered.end_offset), (0, 20));
    let log = bench.open();
    let settings = bench.partition;
    let index = bench.world.run(log.open_partition(recovered, settings, b"")).expect("open");
    bench.append(index, 1, 100);
    bench.flush();
    bench.world.run(log.verify(index)).expect("whole");
}

#[test]
fn a_failed_commit_is_fatal_and_acknowledges_nothing() {
    let (mut bench, index) = bench_with(3);
    bench.append(index, 1, 100);
    bench.world.durable.clear();
    bench.world.disk.0.borrow_mut().storage.fail_next_write = Some(io::ErrorKind::Other);
    for _ in 0..100 {
        bench.world.turn();
    }
    assert!(bench.world.fatal.is_some());
    assert!(bench.world.durable.is_empty());
    assert_eq!(bench.try_append(index, 1, 100, 0), Err(Refused::Failed));
    let log = bench.log();
    let completion = DiskCompletion { token: ringlog::ports::WriteToken(1 << 63), result: Ok(()) };
    assert!(log.on_completion(completion, bench.world.now, &mut Vec::new()).is_err(), "it stays failed");
    bench.crash();
    assert!((6..=7).contains(&end_of(&mut bench)));
}

#[test]
fn a_full_disk_refuses_appends_and_takes_them_again_when_there_is_room() {
    let (mut bench, index) = bench_with(3);
    bench.flush();
    bench.world.disk.0.borrow_mut().storage.space = 0;
    let mut refused = None;
    for _ in 0..20_000 {
        match bench.try_append(index, 1, 2000, 0) {
            Err(Refused::DiskFull) => {
                refused = Some(Refused::DiskFull);
                break;
            }
            _ => bench.world.turn(),
        }
    }
    assert_eq!(refused, Some(Refused::DiskFull));
    assert_eq!(bench.world.fatal, None);
    let (_, end) = bench.log().offsets(index).expect("open");
    assert!(!bench.read(index, 0, 1000).expect("reads go on").is_empty());
    bench.world.disk.0.borrow_mut().storage.space = 1 << 40;
    let mut taken = false;
    for _ in 0..20_000 {
        bench.world.pass_ms(1);
        bench.world.turn();
        if bench.try_append(index, 1, 2000, 0).is_ok() {
            taken = true;
            break;
        }
    }
    assert!(taken, "appends are taken again by themselves");
    bench.flush();
    bench.crash();
    assert_eq!(end_of(&mut bench), end + 1);
}

#[test]
fn a_batch_that_no_journal_file_can_hold_is_refused_for_good() {
    let (mut bench, index) = bench_with(0);
    assert_eq!(bench.try_append(index, 1, 300 << 10, 0), Err(Refused::TooLarge));
    bench.append(index, 1, 200 << 10);
    bench.until_durable();
}

#[test]
fn deleted_files_are_unlinked_in_the_end_also_after_a_crash() {
    let (mut bench, index) = bench_with(5);
    bench.flush();
    let log = bench.log();
    bench.world.run(log.drop_partition(index)).expect("drop");
    assert!(bench.files(Path::new(DATA), ".log").len() == 1, "readable for a while");
    bench.crash();
    assert!(bench.recover().is_empty());
    let disk = bench.disk();
    bench.world.run(remove_leftovers(&disk, Path::new(DATA))).expect("remove");
    assert!(bench.files(Path::new(DATA), "").is_empty());
}

#[test]
fn retention_by_time_takes_old_segments_and_closes_an_old_active_one() {
    let mut bench = Bench::new(4);
    bench.partition.segment_bytes = 10_000;
    bench.partition.retention_ms = Some(1_000);
    bench.open();
    let index = bench.create(0);
    for n in 0..40 {
        bench.try_append(index, 1, 1000, n * 100).expect("room");
        bench.until_durable();
    }
    bench.flush();
    let log = bench.log();
    let deleted = bench.world.run(log.apply_retention(index, 2_500, Offset::MAX)).expect("retention");
    assert!(deleted > 0);
    let (start, _) = log.offsets(index).expect("open");
    // A segment goes when its newest record is older than a second: those up to 1499 ms.
    assert!((8..=15).contains(&start), "{start}");
    assert_eq!(bench.read(index, start - 1, 100), Err(ReadError::OutOfRange { start, end: 40 }));
    for _ in 0..3 {
        bench.world.run(log.apply_retention(index, 1_000_000, Offset::MAX)).expect("retention");
        bench.flush();
    }
    assert_eq!(log.offsets(index), Some((40, 40)));
    bench.crash();
    assert_eq!(end_of(&mut bench), 40);
}

#[test]
fn batches_are_found_by_time_in_memory_and_in_files() {
    let mut bench = Bench::new(5);
    bench.partition.segment_bytes = 30_000;
    bench.open();
    let index = bench.create(0);
    for n in 0..100 {
        bench.try_append(index, 1, 900, 1000 + n * 10).expect("room");
        bench.until_durable();
    }
    let log = bench.log();
    for restarted in [false, true] {
        let (log, index) = if restarted {
            bench.flush();
            bench.crash();
            let index = bench.restart()[0];
            (bench.log(), index)
        } else {
            (log.clone(), index)
        };
        for (timestamp, expected) in [(0, 0), (1000, 0), (1001, 1), (1455, 46), (1990, 99)] {
            let found = bench.world.run(log.find_by_timestamp(index, timestamp, 0)).expect("lookup").expect("found");
            assert_eq!(batch::check_stored(&found).expect("whole").base_offset, expected, "at {timestamp}");
        }
        assert!(bench.world.run(log.find_by_timestamp(index, 1991, 0)).expect("lookup").is_none());
        let latest = bench.world.run(log.find_max_timestamp(index)).expect("lookup").expect("found");
        assert_eq!(batch::check_stored(&latest).expect("whole").base_offset, 99);
    }
}

#[test]
fn of_two_journals_the_later_one_is_right_about_a_partition() {
    let (mut bench, index) = bench_with(5);
    bench.flush();
    bench.append(index, 1, 100);
    bench.until_durable();
    bench.crash();
    // The partition moves to another core, whose journal then tells more; the old one is not released before the next crash.
    let (old, disk) = (bench.scan(), bench.disk());
    let recovered = bench.world.run(recover(&disk, Path::new(DATA), &old, |_| true, |_, _| {})).expect("recover");
    let recovered = recovered.into_iter().next().expect("one").1.expect("whole");
    let other = Path::new("/data/journal-of-core-1");
    let empty = bench.world.run(scan(&disk, other, usize::MAX)).expect("scan");
    let open = CoreLog::open(disk.clone(), bench.settings.clone(), CoreIndex(1), &empty, 5);
    let log = bench.world.run(open).expect("open");
    bench.world.log = Some(log.clone());
    let index = bench.world.run(log.open_partition(recovered, bench.partition, b"")).expect("open");
    let cut = bench.world.run(log.truncate(index, 4, |_| Vec::new())).expect("truncate");
    assert_eq!(cut, 4);
    bench.append(index, 1, 100);
    bench.flush();
    bench.crash();
    let new = bench.world.run(scan(&disk, other, usize::MAX)).expect("scan");
    assert!(new.partitions[&id(0)].generation > old.partitions[&id(0)].generation);
    let wins = |partition: PartitionId| new.partitions[&partition].generation > old.partitions[&partition].generation;
    let none = bench.world.run(recover(&disk, Path::new(DATA), &old, |id| !wins(id), |_, _| {})).expect("recover");
    assert!(none.is_empty());
    let right = bench.world.run(recover(&disk, Path::new(DATA), &new, wins, |_, _| {})).expect("recover");
    assert_eq!(right[0].1.as_ref().expect("whole").end_offset, 5);
}
