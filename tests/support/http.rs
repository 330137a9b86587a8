//! Asks the admin address, as curl would.

use std::io::{Read, Write};
use std::net::TcpStream;

/// Status and body of a GET.
pub fn get(address: &str, path: &str) -> (u16, String) {
    ask("GET", address, path).expect("the admin thread answers")
}

/// Status and body of a PUT without content; `None` where the broker ends meanwhile.
pub fn put(address: &str, path: &str) -> Option<(u16, String)> {
    ask("PUT", address, path)
}

fn ask(method: &str, address: &str, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    Some((status, body.to_owned()))
}

/// Asks for a partition to be moved.
pub fn move_partition(admin: &str, topic: &str, partition: i32, core: u16) -> Option<(u16, String)> {
    put(admin, &format!("/topics/{topic}/partitions/{partition}/core/{core}"))
}

/// The core of each partition of `topic`.
pub fn cores(admin: &str, topic: &str) -> Vec<u16> {
    let (status, page) = get(admin, "/metrics/topics");
    assert_eq!(status, 200, "{page}");
    let named = format!("ringlog_partition_core{{topic=\"{topic}\",");
    let samples = page.lines().filter(|line| line.starts_with(&named));
    samples.map(|line| line.rsplit(' ').next().and_then(|core| core.parse().ok()).expect("a core")).collect()
}
