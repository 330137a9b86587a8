//! Keys: which one a record gets, and which partition follows from it.
//!
//! Pure.

/// Keys at most: their table takes 12 bytes each.
pub const KEYS_MAX: u64 = 50_000_000;
/// Digits of a key: all have as many, so that all records of a size are of one length.
pub const KEY_BYTES: usize = 12;

/// Draws keys by a Zipf distribution: the k-th is drawn in proportion to 1 / k^skew.
///
/// By an alias table: one draw costs one look-up, however many keys there are. Source: Walker 1977; Vose 1991.
pub struct Keys {
    /// Below this the column's own key is meant, otherwise its alias.
    columns: Vec<(f64, u32)>,
}

impl Keys {
    /// `count` from 1 to `KEYS_MAX`.
    pub fn new(count: u64, skew: f64) -> Keys {
        assert!((1..=KEYS_MAX).contains(&count));
        let count = count as usize;
        let mut weights: Vec<f64> = (1..=count).map(|rank| (rank as f64).powf(-skew)).collect();
        let scale = count as f64 / weights.iter().sum::<f64>();
        weights.iter_mut().for_each(|weight| *weight *= scale);
        let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..count).partition(|&key| weights[key] < 1.0);
        let mut columns: Vec<(f64, u32)> = (0..count as u32).map(|key| (1.0, key)).collect();
        while let (Some(&below), Some(&above)) = (small.last(), large.last()) {
            small.pop();
            columns[below] = (weights[below], above as u32);
            weights[above] -= 1.0 - weights[below];
            if weights[above] < 1.0 {
                large.pop();
                small.push(above);
            }
        }
        Keys { columns }
    }

    /// A key, counted from 0.
    pub fn draw(&self, random: &mut fastrand::Rng) -> u64 {
        let column = random.usize(..self.columns.len());
        let (own, alias) = self.columns[column];
        if random.f64() < own { column as u64 } else { u64::from(alias) }
    }
}

/// The key as a record has it.
pub fn text(key: u64) -> [u8; KEY_BYTES] {
    let mut digits = [b'0'; KEY_BYTES];
    let mut left = key;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (left % 10) as u8;
        left /= 10;
    }
    digits
}

/// The partition that Kafka's Java producer puts `key` into.
///
/// Source: Kafka `BuiltInPartitioner.partitionForKey`, `Utils.murmur2`.
pub fn partition(key: &[u8], partitions: u32) -> u32 {
    (murmur2(key) & 0x7fff_ffff) % partitions
}

/// MurmurHash2 of 32 bits, with Kafka's seed.
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut mixed = u32::from_le_bytes(word.try_into().expect("four")).wrapping_mul(M);
        mixed ^= mixed >> 24;
        hash = hash.wrapping_mul(M) ^ mixed.wrapping_mul(M);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (at, &byte) in rest.iter().enumerate() {
            hash ^= u32::from(byte) << (8 * at);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of Kafka's own test, `UtilsTest.testMurmur2`.
    #[test]
    fn murmur2_is_kafkas() {
        for (text, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(text.as_bytes()) as i32, hash, "{text}");
        }
    }

    #[test]
    fn keys_come_as_often_as_zipf_says() {
        let mut random = fastrand::Rng::with_seed(1);
        for skew in [0.0, 0.9, 1.0, 1.5] {
            let (count, draws) = (1000u64, 400_000);
            let keys = Keys::new(count, skew);
            let mut seen = vec![0u32; count as usize];
            (0..draws).for_each(|_| seen[keys.draw(&mut random) as usize] += 1);
            let sum: f64 = (1..=count).map(|rank| (rank as f64).powf(-skew)).sum();
            for rank in [1u64, 2, 10, 100] {
                let expected = f64::from(draws) * (rank as f64).powf(-skew) / sum;
                let off = (f64::from(seen[rank as usize - 1]) - expected).abs();
                assert!(off < 6.0 * expected.sqrt() + 1.0, "skew {skew}, rank {rank}: {off} off {expected}");
            }
        }
    }

    #[test]
    fn a_key_is_its_number_in_twelve_digits() {
        assert_eq!(&text(0), b"000000000000");
        assert_eq!(&text(1_234_567), b"000001234567");
        assert_eq!(&text(KEYS_MAX), b"000050000000");
    }
}
