//! `ringlog move`: asks a running broker, at its admin address, to move a partition to another core.

use super::error::StartError;
use crate::base::exit::Exit;
use crate::cluster::names::validate;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// How long the broker may take to be reached ...
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// ... and to answer: it gives up sooner by itself.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// An answer is one line.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// Asks for the move; the text says that it is done.
///
/// # Errors
/// What the broker says against it, or why it cannot be asked.
pub fn run(admin: &str, topic: &str, partition: i32, core: u16) -> Result<String, StartError> {
    validate(topic).map_err(|why| StartError::new(Exit::Usage, why))?;
    let answer = put(admin, &format!("/topics/{topic}/partitions/{partition}/core/{core}")).map_err(|error| {
        let hint = "give --admin HOST:PORT as the broker's ready line has it";
        StartError::new(Exit::Refused, format!("no broker answers at {admin}: {error}; {hint}"))
    })?;
    match answer {
        (200, text) => Ok(text),
        (_, text) => Err(StartError::new(Exit::Refused, text.trim_end())),
    }
}

/// Status and body of a PUT without content.
fn put(admin: &str, path: &str) -> io::Result<(u16, String)> {
    let address = admin.to_socket_addrs()?.next().ok_or(io::ErrorKind::AddrNotAvailable)?;
    let mut stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    let head = format!("PUT {path} HTTP/1.1\r\nHost: {admin}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    let mut text = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut text)?;
    parse(&text).ok_or_else(|| io::Error::other("it does not speak HTTP"))
}

fn parse(text: &str) -> Option<(u16, String)> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.1 ")?.split(' ').next()?.parse().ok()?;
    Some((status, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_status_and_a_line() {
        let text = "HTTP/1.1 404 Not Found\r\ncontent-length: 3\r\n\r\nno\n";
        assert_eq!(parse(text), Some((404, "no\n".to_owned())));
        assert_eq!(parse("SSH-2.0-OpenSSH_9.2\r\n"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn names_that_no_topic_has_are_not_sent() {
        for name in ["", "a/b", "a b", "a\r\nb"] {
            assert_eq!(run("127.0.0.1:1", name, 0, 0).unwrap_err().exit, Exit::Usage, "{name:?}");
        }
    }
}
