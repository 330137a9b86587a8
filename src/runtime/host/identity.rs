//! Whose a data directory is: node, cluster and format, in a small file like Kafka's `meta.properties`.
//!
//! A name of its own, so that neither program takes the other's directory for its own.

use crate::base::ids::TopicId;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

/// The file in each data directory.
pub const IDENTITY_FILE: &str = "ringlog.properties";
/// The file while it is being written.
pub const IDENTITY_FILE_NEW: &str = "ringlog.properties.new";
/// Of the data directory's layout. A higher one is refused.
const FORMAT_VERSION: u32 = 1;

/// Who owns a data directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    pub node_id: i32,
    pub cluster_id: String,
}

/// What the configuration says about it; `None` takes what is there.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct IdentityWanted {
    pub node_id: Option<i32>,
    pub cluster_id: Option<String>,
}

impl Identity {
    /// Of a node that starts for the first time: id 1 and a random cluster, unless the configuration says otherwise.
    ///
    /// # Errors
    /// No random numbers.
    pub fn first(wanted: &IdentityWanted) -> io::Result<Identity> {
        let cluster_id = match &wanted.cluster_id {
            Some(id) => id.clone(),
            None => random_id()?,
        };
        Ok(Identity { node_id: wanted.node_id.unwrap_or(1), cluster_id })
    }

    /// Checks this, found in a data directory, against the configuration.
    ///
    /// # Errors
    /// What differs, as the end of a sentence that began with the directory.
    pub fn check(&self, wanted: &IdentityWanted) -> Result<(), String> {
        let Identity { node_id, cluster_id } = self;
        if let Some(wanted) = wanted.node_id.filter(|wanted| wanted != node_id) {
            return Err(format!(
                "belongs to node {node_id}, and this is to be node {wanted}: give --node-id {node_id}, or another --data-dir"
            ));
        }
        if let Some(wanted) = wanted.cluster_id.as_ref().filter(|wanted| *wanted != cluster_id) {
            return Err(format!(
                "belongs to cluster {cluster_id}, and this is to be a node of cluster {wanted}: \
                 give --cluster-id {cluster_id}, or another --data-dir"
            ));
        }
        Ok(())
    }

    /// Reads the identity of `dir`; `None` where it has none.
    ///
    /// # Errors
    /// An unreadable file, as the end of a sentence that began with the directory.
    pub fn read(dir: &Path) -> Result<Option<Identity>, String> {
        match std::fs::read_to_string(dir.join(IDENTITY_FILE)) {
            Ok(text) => parse(&text).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("has a {IDENTITY_FILE} that cannot be read: {error}")),
        }
    }

    /// Writes it into `dir` so that after a power loss it is there whole or not at all.
    ///
    /// # Errors
    /// Those of the filesystem.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        let mut file = File::create(dir.join(IDENTITY_FILE_NEW))?;
        write!(
            file,
            "# Whose this data directory is. Written once by Ringlog; do not edit.\n\
             version={FORMAT_VERSION}\ncluster.id={}\nnode.id={}\n",
            self.cluster_id, self.node_id,
        )?;
        file.sync_all()?;
        std::fs::rename(dir.join(IDENTITY_FILE_NEW), dir.join(IDENTITY_FILE))?;
        File::open(dir)?.sync_all()
    }
}

fn parse(text: &str) -> Result<Identity, String> {
    let value = |name: &str| {
        let lines = text.lines().filter_map(|line| line.split_once('='));
        lines.filter(|(key, _)| key.trim() == name).map(|(_, value)| value.trim()).next_back()
    };
    let damaged = |name: &str| format!("has a damaged {IDENTITY_FILE} (no valid `{name}`): restore that file");
    let version: u32 = value("version").and_then(|text| text.parse().ok()).ok_or_else(|| damaged("version"))?;
    if version > FORMAT_VERSION {
        return Err(format!(
            "was written by a newer Ringlog (format {version}, this one knows {FORMAT_VERSION}): run that one"
        ));
    }
    let node_id = value("node.id").and_then(|text| text.parse().ok()).filter(|&id: &i32| id >= 0);
    let cluster_id = value("cluster.id").filter(|id| !id.is_empty());
    Ok(Identity {
        node_id: node_id.ok_or_else(|| damaged("node.id"))?,
        cluster_id: cluster_id.ok_or_else(|| damaged("cluster.id"))?.to_owned(),
    })
}

/// A random UUID of version 4 in Kafka's text form. As Kafka's own, never with a dash in front, which a shell would take for a flag.
fn random_id() -> io::Result<String> {
    let mut random = File::open("/dev/urandom")?;
    loop {
        let mut bytes = [0; 16];
        random.read_exact(&mut bytes)?;
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let id = TopicId(bytes).to_string();
        if !id.starts_with('-') {
            return Ok(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_reads_what_it_wrote() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Identity::read(dir.path()), Ok(None));
        let identity = Identity { node_id: 7, cluster_id: "MkU3OEVBNTcwNTJENTM2Qk".to_owned() };
        identity.write(dir.path()).unwrap();
        assert_eq!(Identity::read(dir.path()), Ok(Some(identity)));
        assert!(!dir.path().join(IDENTITY_FILE_NEW).exists());
    }

    #[test]
    fn random_ids_are_uuids_in_kafkas_form_and_differ() {
        let ids: Vec<String> = (0..200).map(|_| random_id().unwrap()).collect();
        for (index, id) in ids.iter().enumerate() {
            let uuid = TopicId::parse(id).unwrap().0;
            assert_eq!((uuid[6] >> 4, uuid[8] >> 6), (4, 2), "{id}");
            assert!(!id.starts_with('-') && !ids[..index].contains(id), "{id}");
        }
    }

    #[test]
    fn a_damaged_or_newer_file_is_refused_and_not_guessed_at() {
        for (text, word) in [
            ("", "version"),
            ("version=1\ncluster.id=c\n", "node.id"),
            ("version=1\nnode.id=-1\ncluster.id=c\n", "node.id"),
            ("version=1\nnode.id=1\ncluster.id=\n", "cluster.id"),
            ("version=2\nnode.id=1\ncluster.id=c\n", "newer"),
        ] {
            let message = parse(text).unwrap_err();
            assert!(message.contains(word), "{text:?}: {message}");
        }
    }

    #[test]
    fn another_node_or_cluster_is_refused_with_the_right_flag() {
        let identity = Identity { node_id: 1, cluster_id: "a".to_owned() };
        let wanted =
            |node_id, cluster_id: Option<&str>| IdentityWanted { node_id, cluster_id: cluster_id.map(str::to_owned) };
        assert_eq!(identity.check(&wanted(None, None)), Ok(()));
        assert_eq!(identity.check(&wanted(Some(1), Some("a"))), Ok(()));
        assert!(identity.check(&wanted(Some(2), None)).unwrap_err().contains("--node-id 1"));
        assert!(identity.check(&wanted(None, Some("b"))).unwrap_err().contains("--cluster-id a"));
    }
}
