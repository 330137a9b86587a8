//! Whether the addresses can be listened on, asked before the cores start.

use super::HostError;
use crate::base::config::HostPort;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::time::{Duration, Instant};

/// Between two tries at a port that is taken.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Checks that nobody listens on these addresses, each with the option that sets it, and that this process may, trying again for `patience`
/// while one is taken.
///
/// Without SO_REUSEPORT, so that a second broker is found, with which the cores' own sockets would share the port in silence.
/// The patience is for a broker that was killed: its dying rings hold the port for a moment longer.
///
/// # Errors
/// `HostError::Address`, of the first that cannot be, or that one before has taken.
pub fn check_addresses(addresses: &[(HostPort, &str)], patience: Duration) -> Result<(), HostError> {
    let deadline = Instant::now() + patience;
    for (at, (address, option)) in addresses.iter().enumerate() {
        if address.port != 0 && addresses[..at].iter().any(|(before, _)| before == address) {
            let reason = format!("another listener of this broker has it: choose another with {option}");
            return Err(HostError::Address { address: address.to_string(), reason });
        }
        bind(address, option, deadline)?;
    }
    Ok(())
}

fn bind(address: &HostPort, option: &str, deadline: Instant) -> Result<(), HostError> {
    loop {
        let error = match TcpListener::bind((address.host.as_str(), address.port)) {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        let reason = match error.kind() {
            ErrorKind::AddrInUse if Instant::now() < deadline => {
                std::thread::sleep(RETRY_PAUSE);
                continue;
            }
            ErrorKind::AddrInUse => {
                format!("the port is taken by another process: stop that, or choose another with {option}")
            }
            ErrorKind::AddrNotAvailable => {
                "it is no address of this machine: listen on one that is, or on 0.0.0.0, and say with --advertise \
                 where clients find it"
                    .to_owned()
            }
            ErrorKind::PermissionDenied => {
                "this process may not use that port: choose one from 1024 up, or give it CAP_NET_BIND_SERVICE"
                    .to_owned()
            }
            _ => format!("{error}: choose another with {option}"),
        };
        return Err(HostError::Address { address: address.to_string(), reason });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(port: u16) -> HostPort {
        HostPort { host: "127.0.0.1".to_owned(), port }
    }

    #[test]
    fn a_port_is_refused_while_it_is_taken_and_free_after() {
        let holder = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = local(holder.local_addr().unwrap().port());
        let message = check_addresses(&[(address.clone(), "--listen")], Duration::ZERO).unwrap_err().to_string();
        assert!(message.contains("taken by another process"), "{message}");
        drop(holder);
        check_addresses(&[(address.clone(), "--listen")], Duration::ZERO).unwrap();
    }

    #[test]
    fn patience_outlasts_a_holder_that_goes_away() {
        let holder = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = local(holder.local_addr().unwrap().port());
        let leaver = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(200));
            drop(holder);
        });
        check_addresses(&[(address.clone(), "--listen")], Duration::from_secs(10)).unwrap();
        leaver.join().unwrap();
    }

    #[test]
    fn an_address_of_another_machine_is_refused() {
        // TEST-NET-3 (RFC 5737) is nobody's.
        let address = HostPort { host: "203.0.113.1".to_owned(), port: 0 };
        let message = check_addresses(&[(address.clone(), "--listen")], Duration::ZERO).unwrap_err().to_string();
        assert!(message.contains("no address of this machine"), "{message}");
    }
}
