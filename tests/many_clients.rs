//! Many clients at once, most of them slow, silent or greedy: what they cost in memory, and that a good one is served beside them.
//!
//! Bounds of memory are sums of what the broker may hold for each connection, with room for what the allocator keeps.

mod support;

use ringlog::protocol::frame::read_response;
use ringlog::protocol::messages::fetch::{FetchPartition, FetchRequest, FetchResponse, FetchTopic};
use ringlog::protocol::messages::produce::ProduceResponse;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use support::clients::{create_topic, until};
use support::raw::{Raw, api_versions, batch, frame, produce};
use support::{Broker, Options};

/// A connection's own state, and the first buffer of a request that is not whole (4 KiB), with room for the allocator.
const CONNECTION_BYTES: u64 = 8 << 10;
/// What a broker's memory may grow by in a test for other reasons: its first buffers, tails, replies.
const REST_BYTES: u64 = 48 << 20;

fn with(settings: &str) -> Broker {
    Broker::start(Options { settings: settings.to_owned(), ..Options::default() })
}

fn fetch(topic: &str, offset: i64) -> FetchRequest<'_> {
    let partition = FetchPartition { fetch_offset: offset, partition_max_bytes: 8 << 20, ..Default::default() };
    let topic = FetchTopic { topic, partitions: vec![partition], ..Default::default() };
    FetchRequest { replica_id: -1, max_bytes: 8 << 20, session_epoch: -1, topics: vec![topic], ..Default::default() }
}

/// A new client writes `value` and reads it back.
fn serves(broker: &Broker, topic: &str, value: &[u8]) {
    try_serve(broker, topic, value).expect("the broker answers");
}

/// As `serves`; fails where the broker closes the connection.
fn try_serve(broker: &Broker, topic: &str, value: &[u8]) -> std::io::Result<()> {
    let mut raw = Raw::connect(broker.address());
    let bytes = raw.try_ask(&frame(1, 9, &produce(topic, -1, &[(0, &batch(value))])))?;
    let (_, response): (i32, ProduceResponse<'_>) = read_response(&bytes, 9).expect("a reply");
    let part = &response.responses[0].partition_responses[0];
    assert_eq!(part.error_code, 0);
    let bytes = raw.try_ask(&frame(2, 11, &fetch(topic, part.base_offset)))?;
    let (_, response): (i32, FetchResponse<'_>) = read_response(&bytes, 11).expect("a reply");
    assert_eq!(response.responses[0].partitions[0].error_code, 0);
    assert!(bytes.windows(value.len()).any(|window| window == value), "what was written is read");
    Ok(())
}

/// So many connections, fewer where this process may not open as many files.
fn connect_many(broker: &Broker, wanted: usize) -> Vec<TcpStream> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let limit = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, limit);
    // Tests of this binary run beside each other; each of them must find some.
    let count = wanted.min(limit.current.map_or(usize::MAX, |most| most as usize * 2 / 3));
    eprintln!("{count} of {wanted} connections");
    (0..count).map(|_| TcpStream::connect(broker.address()).expect("the broker listens")).collect()
}

#[test]
fn a_thousand_announcements_of_90_mib_cost_nothing() {
    let broker = Broker::start(Options {
        journal_bytes: 1 << 30,
        settings: "core.request.memory.bytes = 268435456".into(),
        ..Options::default()
    });
    create_topic(broker.address(), "beside", 1, &[]);
    serves(&broker, "beside", b"before");
    let before = broker.resident_bytes();
    let mut greedy = connect_many(&broker, 1000);
    for stream in &mut greedy {
        stream.write_all(&(90i32 << 20).to_be_bytes()).expect("connected");
        stream.write_all(&[0]).expect("connected");
    }
    serves(&broker, "beside", b"meanwhile");
    let grown = broker.resident_bytes().saturating_sub(before);
    let bound = greedy.len() as u64 * CONNECTION_BYTES + REST_BYTES;
    assert!(grown <= bound, "{grown} bytes for {} connections, over {bound}", greedy.len());
    assert!(is_open(&mut greedy[0]), "an announcement is no offence");
}

fn is_open(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).expect("a socket option");
    matches!(stream.read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
}

#[test]
fn ten_thousand_idle_connections_and_a_thousand_that_drip_are_served_around() {
    let broker = with("");
    create_topic(broker.address(), "beside", 1, &[]);
    serves(&broker, "beside", b"before");
    let before = broker.resident_bytes();
    let idle = connect_many(&broker, 10_000);
    let mut dripping = connect_many(&broker, 1000);
    let drip = frame(1, 9, &produce("beside", -1, &[(0, &batch(&[b'v'; 100]))]));
    // Not by the clock: a byte to each, a good client's round between any two.
    for byte in &drip[..20] {
        for stream in &mut dripping {
            stream.write_all(&[*byte]).expect("connected");
        }
        serves(&broker, "beside", b"meanwhile");
    }
    let count = (idle.len() + dripping.len()) as u64;
    let grown = broker.resident_bytes().saturating_sub(before);
    let bound = count * CONNECTION_BYTES + REST_BYTES;
    assert!(grown <= bound, "{grown} bytes for {count} connections, over {bound}");
    for stream in &mut dripping {
        stream.write_all(&drip[20..]).expect("connected");
    }
    for stream in &mut dripping {
        stream.read_exact(&mut [0; 4]).expect("a request that came slowly is answered");
    }
}

#[test]
fn unfinished_requests_do_not_keep_the_memory_that_others_need() {
    // 16 MiB for each core; 1000 requests of 8 MiB of which 256 KiB come and then a byte now and then, 40 of which 2 MiB come.
    let broker = Broker::start(Options {
        journal_bytes: 64 << 20,
        settings: "core.request.memory.bytes = 16777216\nmessage.max.bytes = 8000000".into(),
        ..Options::default()
    });
    create_topic(broker.address(), "beside", 1, &[]);
    let before = broker.resident_bytes();
    let mut hoarders = connect_many(&broker, 1040);
    let part = vec![0; 2 << 20];
    for (at, stream) in hoarders.iter_mut().enumerate() {
        stream.set_nonblocking(true).expect("a socket option");
        let _ = stream.write(&(8i32 << 20).to_be_bytes());
        let _ = stream.write(if at < 40 { &part } else { &part[..256 << 10] });
    }
    let large = vec![b'v'; 4 << 20];
    for _ in 0..3 {
        // One that waited for very long is closed, and as any client would, it asks again.
        until("a good client is served", || {
            for stream in &mut hoarders {
                let _ = stream.write(&[0]);
            }
            try_serve(&broker, "beside", &large).ok()
        });
    }
    // Two cores, each with its memory, one request over it, and half of it and one request for produces; what is in tails; buffers that
    // double while they are copied; first buffers.
    let bound = 2 * (16 + 8 + 8 + 8 + 8) * (1 << 20) + hoarders.len() as u64 * CONNECTION_BYTES + REST_BYTES;
    let grown = broker.resident_bytes().saturating_sub(before);
    assert!(grown <= bound, "{grown} bytes, over {bound}");
    assert!(broker.log().contains("request memory is short"), "{}", broker.log_tail());
}

#[test]
fn a_slow_request_is_nobodys_concern_while_there_is_memory() {
    let broker = with("");
    create_topic(broker.address(), "slow", 1, &[]);
    let mut raw = Raw::connect(broker.address());
    let request = frame(1, 9, &produce("slow", -1, &[(0, &batch(&vec![b'v'; 100_000]))]));
    let (first, rest) = request.split_at(90_000);
    raw.send(first);
    // Longer than a slow request is suffered when memory is short, by the broker's own clock: four waits of others, one after the other.
    let mut waits = fetch("slow", 0);
    (waits.max_wait_ms, waits.min_bytes) = (1000, i32::MAX);
    let mut other = Raw::connect(broker.address());
    for id in 0..4 {
        other.send(&frame(id, 11, &waits));
        assert_eq!(other.reply_id(), id);
    }
    raw.send(rest);
    assert_eq!(raw.reply_id(), 1);
}

#[test]
fn requests_behind_one_that_waits_are_bounded_too() {
    let broker = Broker::start(Options {
        journal_bytes: 64 << 20,
        settings: "core.request.memory.bytes = 16777216".into(),
        ..Options::default()
    });
    create_topic(broker.address(), "beside", 1, &[]);
    let before = broker.resident_bytes();
    let mut waits = fetch("beside", 0);
    (waits.max_wait_ms, waits.min_bytes) = (600_000, i32::MAX);
    let waits = frame(1, 11, &waits);
    let behind: Vec<u8> = api_versions(2).repeat(1 << 15);
    let mut clients = connect_many(&broker, 400);
    for stream in &mut clients {
        stream.write_all(&waits).expect("connected");
        stream.set_nonblocking(true).expect("a socket option");
        let _ = stream.write(&behind);
    }
    serves(&broker, "beside", b"meanwhile");
    let bound = 2 * (16 << 20) + clients.len() as u64 * CONNECTION_BYTES + REST_BYTES;
    let grown = broker.resident_bytes().saturating_sub(before);
    assert!(grown <= bound, "{grown} bytes, over {bound}");
}

#[test]
fn peers_that_do_not_read_cost_a_bounded_amount_and_get_all_when_they_do() {
    let broker = with("");
    create_topic(broker.address(), "beside", 1, &[]);
    serves(&broker, "beside", &[b'v'; 500_000]);
    let before = broker.resident_bytes();
    let request = frame(7, 11, &fetch("beside", 0));
    let mut deaf: Vec<Raw> = (0..50).map(|_| Raw::connect(broker.address())).collect();
    // 200 replies of 500 KB each: 5 GB in all.
    for raw in &mut deaf {
        raw.send(&request.repeat(200));
    }
    serves(&broker, "beside", b"meanwhile");
    // For each what may be unsent (1 MiB) and one reply more, though most of it is the same memory; and requests.
    let bound = deaf.len() as u64 * (2 << 20) + REST_BYTES;
    let grown = broker.resident_bytes().saturating_sub(before);
    assert!(grown <= bound, "{grown} bytes, over {bound}");
    for raw in deaf.iter_mut().take(3) {
        for _ in 0..200 {
            assert_eq!(raw.reply_id(), 7);
        }
    }
    serves(&broker, "beside", b"after");
}

#[test]
fn peers_that_do_not_read_go_when_the_records_they_keep_are_too_many() {
    let broker = with("core.tail.memory.bytes = 8388608\nmessage.max.bytes = 2000000");
    create_topic(broker.address(), "beside", 1, &[]);
    // Each keeps other records than the rest: what is in memory is what was written last. What the kernel takes of so many replies is
    // far less than all of them.
    let replies = 40;
    let mut deaf = Vec::new();
    for offset in 0..40 {
        let mut raw = Raw::connect(broker.address());
        let bytes =
            raw.try_ask(&frame(1, 9, &produce("beside", -1, &[(0, &batch(&[b'v'; 1_000_000]))]))).expect("a reply");
        let (_, response): (i32, ProduceResponse<'_>) = read_response(&bytes, 9).expect("a reply");
        assert_eq!(response.responses[0].partition_responses[0].base_offset, offset);
        let mut part = fetch("beside", offset);
        part.topics[0].partitions[0].partition_max_bytes = 1;
        raw.send(&frame(7, 11, &part).repeat(replies));
        // The first reply is on its way, so that the others follow while this batch is in memory.
        raw.stream().peek(&mut [0]).expect("the broker answers");
        deaf.push(raw);
    }
    until("replies that nobody reads are given up", || {
        broker.log().contains("memory for records is short").then_some(())
    });
    let whole =
        deaf.into_iter().filter_map(|mut raw| (0..replies).all(|_| raw.try_reply().is_ok()).then_some(())).count();
    assert!(whole < 40, "some were closed");
    serves(&broker, "beside", b"after");
}

#[test]
fn a_peer_that_sends_but_does_not_read_is_idle() {
    let broker = with("connections.max.idle.ms = 1000");
    create_topic(broker.address(), "beside", 1, &[]);
    serves(&broker, "beside", &[b'v'; 500_000]);
    let mut deaf = Raw::connect(broker.address());
    deaf.send(&frame(7, 11, &fetch("beside", 0)).repeat(200));
    let request = api_versions(1);
    until("the connection is closed", || deaf.try_send(&request).is_err().then_some(()));
}

#[test]
fn idle_connections_are_closed_and_long_polls_are_not_idle() {
    let broker = with("connections.max.idle.ms = 1000");
    create_topic(broker.address(), "beside", 1, &[]);
    let mut silent = Raw::connect(broker.address());
    let mut half = Raw::connect(broker.address());
    half.send(&[0, 0, 0, 50, 0]);
    let mut polling = Raw::connect(broker.address());
    let mut waits = fetch("beside", 0);
    (waits.max_wait_ms, waits.min_bytes) = (4000, i32::MAX);
    polling.send(&frame(9, 11, &waits));
    silent.closed("a silent connection");
    half.closed("half a request");
    assert_eq!(polling.reply_id(), 9);
}

#[test]
fn closed_connections_leave_nothing_in_the_kernel() {
    let broker = with("");
    create_topic(broker.address(), "beside", 1, &[]);
    let sockets = || -> u64 {
        // Of the whole machine: other tests move it by some hundreds.
        let text = std::fs::read_to_string("/proc/net/sockstat").expect("Linux");
        text.split_whitespace().nth(2).and_then(|number| number.parse().ok()).expect("sockets: used N")
    };
    let before = sockets();
    for at in 0..60_000 {
        let mut raw = Raw::connect(broker.address());
        match at % 3 {
            0 => raw.send(&[0xff; 4]),
            1 => raw.send(&api_versions(1)),
            _ => {}
        }
        // With an answer unread, the close is a reset.
    }
    serves(&broker, "beside", b"after");
    until("the kernel has let go of the sockets", || (sockets() < before + 20_000).then_some(()));
}

#[test]
fn a_stop_under_load_is_in_order_and_leaves_nothing_to_replay() {
    let mut broker = with("");
    create_topic(broker.address(), "load", 4, &[]);
    let address = broker.address().to_owned();
    let stop = AtomicBool::new(false);
    let records = batch(&[b'v'; 1000]);
    let status = std::thread::scope(|scope| {
        for client in 0..100 {
            let (address, records, stop) = (&address, &records, &stop);
            scope.spawn(move || {
                let Ok(mut stream) = TcpStream::connect(address) else { return };
                let mut poll = fetch("load", 0);
                (poll.max_wait_ms, poll.min_bytes) = (600_000, i32::MAX);
                let request = match client % 4 {
                    0 => frame(1, 11, &poll),
                    _ => frame(1, 9, &produce("load", -1, &[(client % 4, records)])),
                };
                let mut length = [0; 4];
                while !stop.load(Ordering::Relaxed) {
                    if stream.write_all(&request).is_err() || stream.read_exact(&mut length).is_err() {
                        return;
                    }
                    let mut reply = vec![0; u32::from_be_bytes(length) as usize];
                    if stream.read_exact(&mut reply).is_err() {
                        return;
                    }
                }
            });
        }
        serves(&broker, "load", b"meanwhile");
        let status = broker.terminate();
        stop.store(true, Ordering::Relaxed);
        status
    });
    assert_eq!(status.code(), Some(0), "{}", broker.log_tail());
    assert!(broker.log().contains("stopped in order"), "{}", broker.log_tail());
    broker.restart_elsewhere();
    let log = broker.log();
    let recovery = log.lines().rfind(|line| line.contains("recovery is done")).expect("every start says so");
    assert!(recovery.contains("replayed_batches=0 "), "{recovery}");
    serves(&broker, "load", b"after");
}

#[test]
fn a_full_disk_refuses_produce_and_nothing_else_until_there_is_space() {
    let dir = tempfile::tempdir().expect("a directory");
    let free = |path: &std::path::Path| {
        let stat = rustix::fs::statvfs(path).expect("a file system");
        stat.f_bavail * stat.f_frsize
    };
    // A file takes what is over the reserve; others may use the disk meanwhile, hence the wide margins.
    let free = free(dir.path());
    let broker = with(&format!("disk.reserve.bytes = {}", free - free / 8));
    create_topic(broker.address(), "full", 1, &[]);
    serves(&broker, "full", b"before");
    let filler = std::fs::File::create(dir.path().join("filler")).expect("a file");
    rustix::fs::fallocate(&filler, rustix::fs::FallocateFlags::empty(), 0, free / 4).expect("there is space");
    let mut raw = Raw::connect(broker.address());
    let mut try_produce = || {
        raw.send(&frame(1, 9, &produce("full", -1, &[(0, &batch(b"value"))])));
        let bytes = raw.reply();
        let (_, response): (i32, ProduceResponse<'_>) = read_response(&bytes, 9).expect("a reply");
        response.responses[0].partition_responses[0].error_code
    };
    let storage_error = ringlog::base::error::ErrorCode::KafkaStorageError.code();
    until("produce is refused", || (try_produce() == storage_error).then_some(()));
    // Reads and commits go on.
    let mut other = Raw::connect(broker.address());
    other.send(&frame(2, 11, &fetch("full", 0)));
    let bytes = other.reply();
    assert!(bytes.windows(6).any(|window| window == b"before"));
    commit(&mut other, "full");
    std::fs::remove_file(dir.path().join("filler")).expect("it is ours");
    drop(filler);
    until("produce goes on", || (try_produce() == 0).then_some(()));
}

/// Commits offset 1 of partition 0 as a consumer without a group would, waiting for the coordinator to be there.
fn commit(raw: &mut Raw, topic: &str) {
    use ringlog::protocol::messages::find_coordinator::FindCoordinatorRequest;
    use ringlog::protocol::messages::offset_commit::{
        OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic, OffsetCommitResponse,
    };
    let partition = OffsetCommitRequestPartition { committed_offset: 1, ..Default::default() };
    let topic = OffsetCommitRequestTopic { name: topic, partitions: vec![partition] };
    let request = OffsetCommitRequest { group_id: "group", topics: vec![topic], ..Default::default() };
    until("the offset is committed", || {
        raw.send(&frame(3, 2, &FindCoordinatorRequest { key: "group", ..Default::default() }));
        raw.reply();
        raw.send(&frame(4, 7, &request));
        let bytes = raw.reply();
        let (_, response): (i32, OffsetCommitResponse<'_>) = read_response(&bytes, 7).expect("a reply");
        (response.topics[0].partitions[0].error_code == 0).then_some(())
    });
}
