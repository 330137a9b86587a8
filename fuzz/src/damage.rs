//! What a fuzzer's bytes do to the files of a disk: flips, cuts, splices, records in another order, raw bytes. Knows no format but where
//! its records begin; whoever reads the files knows how to seal them again.

use super::sim::bench::Bench;
use std::path::{Path, PathBuf};

/// A file never grows beyond this by being spliced.
const FILE_BYTES_MAX: usize = 1 << 20;
/// Edits of one input; more bytes than these need are not looked at.
const EDITS_MAX: usize = 64;

/// One file of a whole disk, and where its headers and records begin: places worth damaging.
pub struct Source {
    pub path: PathBuf,
    pub bytes: Vec<u8>,
    pub spots: Vec<usize>,
}

/// Puts right the checksums of the header or record at a spot, since no fuzzer finds them by trying. Told the file's path, its bytes and the spot.
pub type Seal = fn(&Path, &mut [u8], usize);

/// The files as an input left them.
pub struct Damaged {
    /// `None` for a lost one.
    pub files: Vec<(PathBuf, Option<Vec<u8>>)>,
    /// Something was sealed: what no disk does by itself, so only that it is survived can be asked.
    pub is_forged: bool,
}

impl Damaged {
    /// Puts the files on the disk of `bench`.
    pub fn put(self, bench: &Bench) {
        for (path, bytes) in self.files {
            if let Some(bytes) = bytes {
                bench.world.disk.0.borrow_mut().storage.put(&path, bytes);
            }
        }
    }
}

/// The fuzzer's bytes, taken from the front; zeros once they are used up.
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    pub fn byte(&mut self) -> usize {
        usize::from(self.bytes(1).first().copied().unwrap_or(0))
    }

    pub fn number(&mut self) -> usize {
        self.byte() << 8 | self.byte()
    }

    pub fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

struct Edit<'a> {
    sources: &'a [Source],
    files: Vec<(PathBuf, Option<Vec<u8>>)>,
}

impl Edit<'_> {
    /// A file, lost or not.
    fn file(&self, input: &mut Input<'_>) -> usize {
        input.byte() % self.files.len()
    }

    fn bytes(&mut self, file: usize) -> &mut Vec<u8> {
        self.files[file].1.get_or_insert_default()
    }

    /// A position at which a header or record began, and the next such position.
    fn spot(&mut self, input: &mut Input<'_>, file: usize) -> (usize, usize) {
        let spots = &self.sources[file].spots;
        let at = input.byte() % spots.len();
        let (from, to) = (spots[at], spots.get(at + 1).copied().unwrap_or(usize::MAX));
        let end = self.bytes(file).len();
        (from.min(end), to.min(end))
    }

    fn bound(&mut self, file: usize) {
        if let Some(bytes) = &mut self.files[file].1 {
            bytes.truncate(FILE_BYTES_MAX);
        }
    }

    /// A position near such a one.
    fn position(&mut self, input: &mut Input<'_>, file: usize) -> usize {
        let (from, _) = self.spot(input, file);
        let end = self.bytes(file).len();
        (from + input.byte()).min(end)
    }
}

/// Applies the edits that `input` tells to `sources`.
pub fn damage(sources: &[Source], mut input: Input<'_>, seal: Seal) -> Damaged {
    let files = sources.iter().map(|source| (source.path.clone(), Some(source.bytes.clone()))).collect();
    let mut edit = Edit { sources, files };
    let mut is_forged = false;
    for _ in 0..EDITS_MAX {
        if input.0.is_empty() {
            break;
        }
        let (kind, file) = (input.byte(), edit.file(&mut input));
        match kind % 12 {
            0 => {
                let (at, mask) = (edit.position(&mut input, file), input.byte() as u8);
                edit.bytes(file).iter_mut().skip(at).take(1).for_each(|byte| *byte ^= mask);
            }
            1 => {
                let (at, count) = (edit.position(&mut input, file), input.byte() % 17);
                let raw = input.bytes(count);
                let bytes = edit.bytes(file);
                let end = (at + raw.len()).min(bytes.len());
                bytes[at..end].copy_from_slice(&raw[..end - at]);
            }
            2 => {
                let at = edit.position(&mut input, file);
                edit.bytes(file).truncate(at);
            }
            3 => {
                let (from, to) = edit.spot(&mut input, file);
                edit.bytes(file).drain(from..to);
            }
            4 => {
                // A record once more: over another one, or between two.
                let (from, to) = edit.spot(&mut input, file);
                let copy = edit.bytes(file)[from..to].to_vec();
                let (other, keep) = (edit.file(&mut input), input.byte());
                let (at, _) = edit.spot(&mut input, other);
                let bytes = edit.bytes(other);
                let replaced = if keep.is_multiple_of(2) { (at + copy.len()).min(bytes.len()) } else { at };
                bytes.splice(at..replaced, copy);
            }
            5 => {
                let ((a, a_end), (b, b_end)) = (edit.spot(&mut input, file), edit.spot(&mut input, file));
                if a_end <= b {
                    let bytes = edit.bytes(file);
                    let swapped = [&bytes[b..b_end], &bytes[a_end..b], &bytes[a..a_end]].concat();
                    bytes[a..b_end].copy_from_slice(&swapped);
                }
            }
            6 => edit.files[file].1 = None,
            7 => {
                let other = edit.file(&mut input);
                edit.files[other].1 = edit.files[file].1.clone();
            }
            8 => {
                let (at, count) = (edit.position(&mut input, file), input.number());
                edit.bytes(file).iter_mut().skip(at).take(count).for_each(|byte| *byte = 0);
            }
            9 => {
                let (zeros, count) = (input.number(), input.byte());
                let raw = input.bytes(count);
                let bytes = edit.bytes(file);
                bytes.extend_from_slice(raw);
                bytes.resize(bytes.len() + zeros, 0);
            }
            10 => {
                let count = input.number();
                *edit.bytes(file) = input.bytes(count).to_vec();
            }
            _ => {
                let (at, _) = edit.spot(&mut input, file);
                let path = edit.files[file].0.clone();
                seal(&path, edit.bytes(file), at);
                is_forged = true;
            }
        }
        edit.bound(file);
    }
    Damaged { files: edit.files, is_forged }
}
