//! Where a key's records go: murmur2, as Kafka's Java clients do it by default.
//!
//! Producers in any language thus put a pipeline's requests where its ledger is, and need nothing of ours for it.

/// Returns the partition of a key among so many; 0 when there are none.
#[must_use]
pub fn partition_of(key: &[u8], partitions: u16) -> i32 {
    let positive = murmur2(key) & 0x7fff_ffff;
    i32::try_from(positive.checked_rem(u32::from(partitions)).unwrap_or(0)).unwrap_or(0)
}

/// Kafka's murmur2 (`org.apache.kafka.common.utils.Utils`): 32 bits, seed 0x9747b28c.
fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    // The length is a 32-bit integer there; keys are far shorter.
    #[expect(clippy::cast_possible_truncation, reason = "as the original does")]
    let mut hash = SEED ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(M);
        k ^= k >> R;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (index, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::{murmur2, partition_of};

    #[test]
    fn hashes_are_those_of_kafkas_own_tests() {
        // UtilsTest.testMurmur2
        let known: [(&str, i32); 6] = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ];
        for (text, hash) in known {
            assert_eq!(murmur2(text.as_bytes()).cast_signed(), hash, "{text}");
        }
    }

    #[test]
    fn partitions_are_in_range() {
        for key in [&b""[..], b"a", b"foobar", &[0xff; 33]] {
            for partitions in [1, 7, 12, 4096] {
                assert!((0..i32::from(partitions)).contains(&partition_of(key, partitions)));
            }
        }
        assert_eq!(partition_of(b"a", 0), 0);
    }
}
