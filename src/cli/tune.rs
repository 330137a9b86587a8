//! `ringlog tune`: the host as `ringlog-tuning` sees it, with the numbers that this broker needs.

use super::args::{ServeArgs, Tune};
use super::error::StartError;
use super::settings::profile_text;
use super::{resolve, serve};
use crate::base::exit::Exit;
use ringlog_tuning::{Finding, Host, PROFILES, Undo, Wanted, apply, check, measure_syncs, probe, table, undo};
use std::path::{Path, PathBuf};

/// What an executor locks, and what a system leaves a process of its users: enough for a thousand clients on small machines.
const LOCKED_BYTES_PER_CORE: u64 = 512 << 10;
/// Open files below which a broker soon runs out: a few thousand clients, as many partitions.
const FILES_WANTED: u64 = 65_536;
/// Durable writes that `check` measures.
const SYNCS: usize = 200;

/// Runs the command; its text goes to stdout.
///
/// # Errors
/// A setting that is wrong, a file or directory that cannot be used: with what to do.
pub fn run(command: &Tune) -> Result<String, StartError> {
    let host = Host::here();
    match command {
        Tune::Check { serve } => Ok(table(&findings(&host, serve, true)?)),
        Tune::Apply { yes, undo, serve } => apply_to(&host, &findings(&host, serve, false)?, *yes, undo),
        Tune::Undo { file } => take_back(&host, file),
        Tune::Probe { serve } => {
            let dir = existing(&data_dir(serve)?);
            let probed = probe(&dir).map_err(|error| failed(&dir, &error))?;
            let (name, why) = probed.proposal();
            Ok(format!("{}in {}\n\nproposed: --profile {name}\nbecause:  {why}\n", probed.table(), dir.display()))
        }
        Tune::Profile { name: None } => {
            Ok(PROFILES.iter().map(|(name, text)| format!("{name:<12}{}\n", &first_line(text)[2..])).collect())
        }
        Tune::Profile { name: Some(name) } => profile_text(name).map(str::to_owned),
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or("# ")
}

fn failed(dir: &Path, error: &std::io::Error) -> StartError {
    StartError::new(
        Exit::DataDir,
        format!("cannot write durably in {}: {error}; name another --data-dir", dir.display()),
    )
}

fn data_dir(args: &ServeArgs) -> Result<PathBuf, StartError> {
    let (settings, _) = serve::choose(args)?;
    let dir = resolve::data_dirs(&settings).swap_remove(0);
    std::path::absolute(&dir).map_err(|error| failed(&dir, &error))
}

/// The directory, or the nearest one above it that is there.
fn existing(dir: &Path) -> PathBuf {
    dir.ancestors().find(|above| above.is_dir()).unwrap_or(Path::new("/")).to_owned()
}

fn findings(host: &Host, args: &ServeArgs, with_syncs: bool) -> Result<Vec<Finding>, StartError> {
    let (settings, cpus) = serve::choose(args)?;
    let data_dir = data_dir(args)?;
    let dir = existing(&data_dir);
    let syncs = match with_syncs {
        true => Some(measure_syncs(&dir, 4096, SYNCS).map_err(|error| failed(&dir, &error))?),
        false => None,
    };
    let wanted = Wanted {
        locked_bytes: LOCKED_BYTES_PER_CORE * cpus.len() as u64,
        cpus,
        data_dir,
        backlog: settings.integer("socket.listen.backlog.size").unwrap_or(0) as u64,
        files: FILES_WANTED,
    };
    Ok(check(host, &wanted, syncs))
}

fn apply_to(host: &Host, findings: &[Finding], really: bool, file: &Path) -> Result<String, StartError> {
    let changes: Vec<String> = findings
        .iter()
        .flat_map(|finding| {
            finding.changes.iter().map(|change| format!("{} = {}   ({})", change.path, change.value, finding.what))
        })
        .collect();
    if changes.is_empty() {
        return Ok("nothing to change\n".to_owned());
    }
    let list = changes.join("\n");
    if !really {
        return Ok(format!("would write, with --yes:\n{list}\n"));
    }
    if file.exists() {
        let message = format!(
            "{} holds what an earlier apply has changed: undo that first, or name another --undo",
            file.display()
        );
        return Err(StartError::new(Exit::Usage, message));
    }
    let (before, failures) = apply(host, findings);
    let text = toml::to_string(&before).expect("plain data");
    std::fs::write(file, text).map_err(|error| {
        let left = undo(host, &before);
        let state = if left.is_empty() { "everything is as it was" } else { "not everything could be put back" };
        StartError::new(Exit::Usage, format!("cannot keep the old values in {}: {error}; {state}", file.display()))
    })?;
    match failures.is_empty() {
        true => Ok(format!("{list}\nold values are in {}; take them back with `ringlog tune undo`\n", file.display())),
        false => Err(StartError::new(Exit::Usage, format!("not all could be written: {}", failures.join("; ")))),
    }
}

fn take_back(host: &Host, file: &Path) -> Result<String, StartError> {
    let unreadable = |error: &dyn std::fmt::Display| {
        StartError::new(
            Exit::Usage,
            format!("{}: {error}; give the file that `ringlog tune apply` wrote", file.display()),
        )
    };
    let text = std::fs::read_to_string(file).map_err(|error| unreadable(&error))?;
    let before: Undo = toml::from_str(&text).map_err(|error| unreadable(&error))?;
    let failures = undo(host, &before);
    if !failures.is_empty() {
        return Err(StartError::new(
            Exit::Usage,
            format!("not all could be put back: {}; run it as root", failures.join("; ")),
        ));
    }
    std::fs::remove_file(file).map_err(|error| unreadable(&error))?;
    Ok(format!("{} values are as they were\n", before.values.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::relations;
    use crate::cli::settings::Settings;

    #[test]
    fn every_profile_can_be_served_with() {
        for (name, _) in PROFILES {
            let settings = Settings::load(Some(name), None, &[]).unwrap_or_else(|error| panic!("{name}: {error}"));
            relations::check(&settings).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        let error = Settings::load(Some("quick"), None, &[]).err().expect("there is none such");
        assert!(error.message.contains("latency"), "{}", error.message);
    }
}
