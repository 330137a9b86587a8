//! What the settings mean to each other, and texts that have a form of their own: checked before anything is touched.

use super::error::StartError;
use super::settings::Settings;
use crate::base::config::HostPort;
use crate::base::limits::{COMMIT_BYTES_MAX, JOURNAL_OVERHEAD_BYTES_MAX};
use crate::runtime::host;

/// Fewer files could all be waiting for their segments while the next one is needed.
const JOURNAL_FILES_MIN: i64 = 4;
/// Longest cluster id; Kafka's are 22.
const CLUSTER_ID_BYTES_MAX: usize = 64;

/// Checks what one value alone does not show.
///
/// # Errors
/// The first relation that does not hold, with both values and what to change.
pub fn check(settings: &Settings) -> Result<(), StartError> {
    listeners(settings)?;
    admin(settings)?;
    cluster_id(settings)?;
    cpus(settings)?;
    journal(settings)?;
    requests(settings)?;
    groups(settings)
}

/// Checks what is set for single cores, of which there are `count`.
///
/// # Errors
/// As `check`.
pub fn check_cores(settings: &Settings, count: usize) -> Result<(), StartError> {
    if let Some((core, name, _, origin)) = settings.entries_of_cores().find(|(core, ..)| usize::from(*core) >= count) {
        let last = count - 1;
        let message =
            format!("`{name}` is set for core {core}, and the cores are 0 to {last}: set core.count, or take it out");
        return Err(StartError::new(origin.exit(), message));
    }
    let cores: Vec<Settings> = (0..count as u16).map(|core| settings.of_core(core)).collect();
    for settings in &cores {
        journal(settings)?;
        requests(settings)?;
        let dirs = settings.list("log.dirs").expect("it has a default");
        if settings.text("core.data.dir").is_some_and(|dir| !dirs.iter().any(|other| other == dir)) {
            return Err(fault(settings, "core.data.dir", &format!("is none of log.dirs: {}", dirs.join(", "))));
        }
    }
    let first_port = settings.integer("core.listeners.port").unwrap_or(0);
    if first_port + count as i64 - 1 > i64::from(u16::MAX) {
        return Err(fault(settings, "core.listeners.port", &format!("leaves no ports for {count} cores: lower it")));
    }
    for (name, what) in [("core.accept", "takes connections"), ("core.partitions", "is given partitions")] {
        if !cores.iter().any(|settings| settings.flag(name).expect("it has a default")) {
            return Err(fault(
                &cores[0],
                name,
                &format!("holds for all cores, so that none {what}: leave it out for one"),
            ));
        }
    }
    Ok(())
}

/// The address of `listeners` or `advertised.listeners`, which has been checked. `None` where the key has no value.
pub fn address(settings: &Settings, name: &'static str) -> Option<HostPort> {
    settings.text(name).map(|text| parse_address(text).expect("addresses are checked before they are used"))
}

fn parse_address(text: &str) -> Option<HostPort> {
    HostPort::parse(text.strip_prefix("PLAINTEXT://").unwrap_or(text))
}

fn listeners(settings: &Settings) -> Result<(), StartError> {
    for name in ["listeners", "advertised.listeners"] {
        let Some(text) = settings.text(name) else { continue };
        let reason = match text.split_once("://") {
            _ if text.contains(',') => "names more than one listener: give one HOST:PORT",
            Some((protocol, _)) if protocol != "PLAINTEXT" => "is not PLAINTEXT: no other protocol is served",
            _ if parse_address(text).is_none() => "is not HOST:PORT, as in 127.0.0.1:9092 or [::1]:9092",
            _ => continue,
        };
        return Err(fault(settings, name, reason));
    }
    let listen = address(settings, "listeners").expect("it has a default");
    match address(settings, "advertised.listeners") {
        Some(advertise) if advertise.is_wildcard() => {
            Err(fault(settings, "advertised.listeners", "is no address that clients can connect to: name this machine"))
        }
        Some(advertise) if advertise.port == 0 => {
            Err(fault(settings, "advertised.listeners", "has port 0, which clients cannot connect to"))
        }
        None if listen.is_wildcard() => Err(fault(
            settings,
            "listeners",
            "is no address that clients can connect to: say with --advertise HOST:PORT where they reach this machine",
        )),
        _ => Ok(()),
    }
}

fn admin(settings: &Settings) -> Result<(), StartError> {
    let text = settings.text("admin.listen").expect("it has a default");
    match text == "none" || HostPort::parse(text).is_some() {
        true => Ok(()),
        false => Err(fault(settings, "admin.listen", "is not HOST:PORT, as in 127.0.0.1:9644, nor none")),
    }
}

fn cluster_id(settings: &Settings) -> Result<(), StartError> {
    let Some(id) = settings.text("cluster.id") else { return Ok(()) };
    let plain = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    match plain && (1..=CLUSTER_ID_BYTES_MAX).contains(&id.len()) {
        true => Ok(()),
        false => Err(fault(settings, "cluster.id", "is not 1 to 64 letters, digits, dots, dashes or underscores")),
    }
}

fn cpus(settings: &Settings) -> Result<(), StartError> {
    let Some(text) = settings.text("core.cpus") else { return Ok(()) };
    host::parse_cpus(text).map(drop).map_err(|reason| fault(settings, "core.cpus", &reason))
}

fn journal(settings: &Settings) -> Result<(), StartError> {
    let journal_bytes = settings.integer("journal.bytes").expect("it has a default");
    let file_bytes = settings.integer("journal.file.bytes").expect("it has a default");
    let request_bytes = settings.integer("socket.request.max.bytes").expect("it has a default");
    let overhead_bytes = JOURNAL_OVERHEAD_BYTES_MAX as i64;
    if file_bytes < request_bytes + overhead_bytes {
        let file_bytes_enough = round_up(request_bytes + overhead_bytes, COMMIT_BYTES_MAX as i64);
        let reason = format!(
            "cannot hold the largest request, {}, with {overhead_bytes} bytes of its own: set socket.request.max.bytes \
             to {} or less, or journal.file.bytes to {file_bytes_enough} or more",
            settings.cite("socket.request.max.bytes"),
            file_bytes - overhead_bytes,
        );
        return Err(fault(settings, "journal.file.bytes", &reason));
    }
    if journal_bytes % file_bytes != 0 || journal_bytes / file_bytes < JOURNAL_FILES_MIN {
        let journal_bytes_near = round_up(journal_bytes, file_bytes).max(JOURNAL_FILES_MIN * file_bytes);
        let reason = format!(
            "is not a whole number of at least {JOURNAL_FILES_MIN} files of {}: set journal.bytes to {journal_bytes_near}",
            settings.cite("journal.file.bytes"),
        );
        return Err(fault(settings, "journal.bytes", &reason));
    }
    Ok(())
}

/// The least multiple of `step` that is not below `number`. Both are positive.
fn round_up(number: i64, step: i64) -> i64 {
    (number as u64).next_multiple_of(step as u64) as i64
}

fn requests(settings: &Settings) -> Result<(), StartError> {
    at_most(settings, "message.max.bytes", "socket.request.max.bytes", "no request could carry such a batch")?;
    at_most(settings, "socket.request.max.bytes", "core.request.memory.bytes", "such a request would never be read")
}

fn groups(settings: &Settings) -> Result<(), StartError> {
    at_most(settings, "group.min.session.timeout.ms", "group.max.session.timeout.ms", "no timeout would be allowed")
}

/// Holds `lower <= upper`.
fn at_most(settings: &Settings, lower: &'static str, upper: &'static str, why: &str) -> Result<(), StartError> {
    if settings.integer(lower) <= settings.integer(upper) {
        return Ok(());
    }
    let reason = format!("is above {}: {why}; lower the first or raise the second", settings.cite(upper));
    Err(fault(settings, lower, &reason))
}

/// A wrong value, blamed on where it came from.
fn fault(settings: &Settings, name: &'static str, reason: &str) -> StartError {
    StartError::new(settings.exit_for(name), format!("{} {reason}", settings.cite(name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::keys::Value;
    use crate::cli::settings::Override;

    fn checked(pairs: &[(&str, Value)]) -> Result<(), String> {
        let overrides: Vec<Override> = pairs
            .iter()
            .map(|(name, value)| Override { flag: "--set".to_owned(), name: (*name).to_owned(), value: value.clone() })
            .collect();
        let settings = Settings::load(None, None, &overrides).map_err(|error| error.message)?;
        check(&settings).map_err(|error| error.message)
    }

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    #[test]
    fn the_defaults_hold_together() {
        assert_eq!(checked(&[]), Ok(()));
    }

    #[test]
    fn what_is_set_for_single_cores_holds_together() {
        let checked = |pairs: &[(&str, Value)]| {
            let set = |(name, value): &(&str, Value)| Override {
                flag: "--set".to_owned(),
                name: (*name).to_owned(),
                value: value.clone(),
            };
            let overrides: Vec<Override> = pairs.iter().map(set).collect();
            let settings = Settings::load(None, None, &overrides).map_err(|error| error.message)?;
            check_cores(&settings, 2).map_err(|error| error.message)
        };
        let dirs = ("log.dirs", text("a,b"));
        for good in [
            &[("core.1.accept", Value::Flag(false))][..],
            &[("core.1.accept", Value::Flag(false)), ("core.0.partitions", Value::Flag(false))],
            &[("core.0.journal.bytes", text("1GiB"))],
            &[dirs.clone(), ("core.0.data.dir", text("b"))],
        ] {
            assert_eq!(checked(good), Ok(()), "{good:?}");
        }
        for (bad, reason) in [
            (&[("core.2.accept", Value::Flag(false))][..], "`core.accept` is set for core 2, and the cores are 0 to 1"),
            (&[("core.accept", Value::Flag(false))], "none takes connections"),
            (
                &[("core.0.partitions", Value::Flag(false)), ("core.1.partitions", Value::Flag(false))],
                "none is given partitions",
            ),
            (&[("core.1.journal.bytes", text("130MiB"))], "(--set, for core 1) is not a whole number"),
            (&[("core.1.request.memory.bytes", text("16MiB"))], "(--set, for core 1)"),
            (&[dirs, ("core.0.data.dir", text("c"))], "is none of log.dirs: a, b"),
        ] {
            let message = checked(bad).unwrap_err();
            assert!(message.contains(reason), "{message}");
        }
    }

    #[test]
    fn a_journal_file_smaller_than_a_request_says_what_to_set_and_that_helps() {
        let small = ("journal.file.bytes", Value::Integer(8 << 20));
        assert_eq!(
            checked(std::slice::from_ref(&small)).unwrap_err(),
            "`journal.file.bytes` = 8388608 (--set) cannot hold the largest request, `socket.request.max.bytes` = \
             104857600 (the default), with 16384 bytes of its own: set socket.request.max.bytes to 8372224 or less, or \
             journal.file.bytes to 105906176 or more"
        );
        assert_eq!(checked(&[small, ("socket.request.max.bytes", Value::Integer(8_372_224))]), Ok(()));
        let files =
            [("journal.file.bytes", Value::Integer(105_906_176)), ("journal.bytes", Value::Integer(423_624_704))];
        assert_eq!(checked(&files), Ok(()));
    }

    #[test]
    fn the_journal_is_at_least_four_whole_files() {
        for journal_bytes in [(512 << 20) + 1, 384 << 20] {
            let message = checked(&[("journal.bytes", Value::Integer(journal_bytes))]).unwrap_err();
            let advised: i64 = message.rsplit(' ').next().unwrap().parse().unwrap();
            assert_eq!(checked(&[("journal.bytes", Value::Integer(advised))]), Ok(()), "{message}");
        }
    }

    #[test]
    fn a_batch_fits_a_request_and_a_request_the_memory() {
        assert!(checked(&[("message.max.bytes", Value::Integer(104_857_601))]).is_err());
        assert_eq!(checked(&[("message.max.bytes", Value::Integer(104_857_600))]), Ok(()));
        assert!(checked(&[("core.request.memory.bytes", text("99MiB"))]).is_err());
        assert_eq!(checked(&[("core.request.memory.bytes", text("100MiB"))]), Ok(()));
    }

    #[test]
    fn listeners_are_one_plaintext_address() {
        for good in ["127.0.0.1:0", "PLAINTEXT://localhost:9092", "[::1]:9092"] {
            assert_eq!(checked(&[("listeners", text(good))]), Ok(()), "{good}");
        }
        for bad in ["", ":9092", "a:1,b:2", "SSL://a:1", "a:99999", "PLAINTEXT://"] {
            assert!(checked(&[("listeners", text(bad))]).is_err(), "{bad}");
        }
    }

    #[test]
    fn metrics_are_served_on_an_address_or_nowhere() {
        for good in ["127.0.0.1:0", "0.0.0.0:9644", "none"] {
            assert_eq!(checked(&[("admin.listen", text(good))]), Ok(()), "{good}");
        }
        for bad in ["", "9644", "host", "http://a:1", "a:1,b:2"] {
            assert!(checked(&[("admin.listen", text(bad))]).unwrap_err().contains("HOST:PORT"), "{bad}");
        }
    }

    #[test]
    fn a_wildcard_needs_an_address_to_advertise() {
        let wildcard = ("listeners", text("0.0.0.0:9092"));
        assert!(checked(std::slice::from_ref(&wildcard)).unwrap_err().contains("--advertise"));
        assert_eq!(checked(&[wildcard.clone(), ("advertised.listeners", text("broker:9092"))]), Ok(()));
        assert!(checked(&[wildcard.clone(), ("advertised.listeners", text("[::]:9092"))]).is_err());
        assert!(checked(&[wildcard, ("advertised.listeners", text("broker:0"))]).is_err());
    }

    #[test]
    fn cluster_ids_are_short_and_plain() {
        assert_eq!(checked(&[("cluster.id", text("MkU3OEVBNTcwNTJENTM2Qk"))]), Ok(()));
        for bad in ["", "a b", "a\nnode.id=7", &"x".repeat(65)] {
            assert!(checked(&[("cluster.id", text(bad))]).is_err(), "{bad}");
        }
    }
}
