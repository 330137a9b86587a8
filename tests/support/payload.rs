//! Records that prove themselves: who wrote them, which one it is, and that no byte has changed.
//!
//! Layout: producer u32, sequence u64, CRC-32C of everything else u32, filler derived from the first two.

/// Producer, and the number this producer gave the record; counts from 0 per producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordId {
    pub producer: u32,
    pub sequence: u64,
}

const HEADER_BYTES: usize = 16;

/// Filler is below this: from nothing to a few blocks of the journal.
const FILLER_BYTES_MAX: u64 = 6000;

/// The only bytes a record of this id may have.
pub fn encode(id: RecordId) -> Vec<u8> {
    let mut state = (u64::from(id.producer) << 40) ^ id.sequence;
    // Most records are small, one in sixteen is not.
    let bound = if split_mix(&mut state).is_multiple_of(16) { FILLER_BYTES_MAX } else { 200 };
    let filler_bytes = (split_mix(&mut state) % bound) as usize;
    let mut bytes = Vec::with_capacity(HEADER_BYTES + filler_bytes + 8);
    bytes.extend(id.producer.to_be_bytes());
    bytes.extend(id.sequence.to_be_bytes());
    bytes.extend([0; 4]);
    while bytes.len() < HEADER_BYTES + filler_bytes {
        bytes.extend(split_mix(&mut state).to_be_bytes());
    }
    bytes.truncate(HEADER_BYTES + filler_bytes);
    let checksum = checksum(&bytes);
    bytes[12..HEADER_BYTES].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

/// The id in `bytes`, or nothing when they are not exactly what `encode` made of it.
pub fn decode(bytes: &[u8]) -> Option<RecordId> {
    let (header, _) = bytes.split_first_chunk::<HEADER_BYTES>()?;
    let (producer, rest) = header.split_first_chunk::<4>()?;
    let (sequence, stored) = rest.split_first_chunk::<8>()?;
    let id = RecordId { producer: u32::from_be_bytes(*producer), sequence: u64::from_be_bytes(*sequence) };
    // The checksum first: it is what tells a changed byte from a record of another test.
    (stored == checksum(bytes).to_be_bytes() && encode(id) == bytes).then_some(id)
}

fn checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[HEADER_BYTES..])
}

/// The next number of the SplitMix64 sequence (Steele, Lea, Flood 2014): small, seedable, good enough to vary tests.
pub fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_knows_itself_and_any_changed_byte_shows() {
        for sequence in 0..50 {
            let id = RecordId { producer: 7, sequence };
            let bytes = encode(id);
            assert_eq!(decode(&bytes), Some(id));
            for at in 0..bytes.len() {
                let mut changed = bytes.clone();
                changed[at] ^= 1;
                assert_eq!(decode(&changed), None, "byte {at} of {}", bytes.len());
            }
            assert_eq!(decode(&bytes[..bytes.len() - 1]), None);
        }
    }
}
