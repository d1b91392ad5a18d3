//! XXH64, the hash on whose values meshes agree.

const PRIME_1: u64 = 0x9E37_79B1_85EB_CA87;
const PRIME_2: u64 = 0xC2B2_AE3D_27D4_EB4F;
const PRIME_3: u64 = 0x1656_67B1_9E37_79F9;
const PRIME_4: u64 = 0x85EB_CA77_C2B2_AE63;
const PRIME_5: u64 = 0x27D4_EB2F_1656_67C5;

/// XXH64 of some bytes.
///
/// Fast and evenly spread, and **no** protection against bytes chosen to collide.
///
/// Envoy and gRPC hash requests and endpoints with it, seed 0, so callers of all three send one key to one endpoint.
/// (github.com/Cyan4973/xxHash, `doc/xxhash_spec.md`)
///
/// ```
/// assert_eq!(mesh_core::balance::xxh64(b"abc", 0), 0x44BC_2CF5_AD77_0999);
/// ```
pub fn xxh64(bytes: &[u8], seed: u64) -> u64 {
    let (stripes, rest) = bytes.as_chunks::<32>();
    let mut hash = if stripes.is_empty() { seed.wrapping_add(PRIME_5) } else { long(stripes, seed) };
    hash = hash.wrapping_add(bytes.len() as u64);
    let (words, rest) = rest.as_chunks::<8>();
    for word in words {
        hash ^= round(0, u64::from_le_bytes(*word));
        hash = hash.rotate_left(27).wrapping_mul(PRIME_1).wrapping_add(PRIME_4);
    }
    let (halves, rest) = rest.as_chunks::<4>();
    for half in halves {
        hash ^= u64::from(u32::from_le_bytes(*half)).wrapping_mul(PRIME_1);
        hash = hash.rotate_left(23).wrapping_mul(PRIME_2).wrapping_add(PRIME_3);
    }
    for byte in rest {
        hash ^= u64::from(*byte).wrapping_mul(PRIME_5);
        hash = hash.rotate_left(11).wrapping_mul(PRIME_1);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(PRIME_2);
    hash = (hash ^ (hash >> 29)).wrapping_mul(PRIME_3);
    hash ^ (hash >> 32)
}

fn round(lane: u64, input: u64) -> u64 {
    lane.wrapping_add(input.wrapping_mul(PRIME_2)).rotate_left(31).wrapping_mul(PRIME_1)
}

/// Four lanes, for what is at least 32 bytes long.
fn long(stripes: &[[u8; 32]], seed: u64) -> u64 {
    let mut lanes = [
        seed.wrapping_add(PRIME_1).wrapping_add(PRIME_2),
        seed.wrapping_add(PRIME_2),
        seed,
        seed.wrapping_sub(PRIME_1),
    ];
    for stripe in stripes {
        let (words, _) = stripe.as_chunks::<8>();
        for (lane, word) in lanes.iter_mut().zip(words) {
            *lane = round(*lane, u64::from_le_bytes(*word));
        }
    }
    let [a, b, c, d] = lanes;
    let mut hash = (a.rotate_left(1))
        .wrapping_add(b.rotate_left(7))
        .wrapping_add(c.rotate_left(12))
        .wrapping_add(d.rotate_left(18));
    for lane in lanes {
        hash = (hash ^ round(0, lane)).wrapping_mul(PRIME_1).wrapping_add(PRIME_4);
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::{PRIME_1, xxh64};

    /// Values of the reference implementation.
    #[test]
    fn agrees_with_the_reference() {
        let numbers: Vec<u8> = (0..101).map(|n| n as u8).collect();
        for (bytes, seed, expected) in [
            (&b""[..], 0, 0xEF46_DB37_51D8_E999),
            (b"a", 0, 0xD24E_C4F1_A98C_6E5B),
            (b"abc", 0, 0x44BC_2CF5_AD77_0999),
            (b"xxhash", 0, 0x32DD_3895_2C4B_C720),
            (b"xxhash", 20_141_025, 0xB559_B98D_844E_0635),
            (b"Nobody inspects the spammish repetition", 0, 0xFBCE_A83C_8A37_8BF1),
        ] {
            assert_eq!(xxh64(bytes, seed), expected, "{}", String::from_utf8_lossy(bytes));
        }
        // Every length, with and without whole stripes, words, halves and bytes after them: the hash of all the hashes.
        for (seed, expected) in [(0, 0xAA18_4D63_F60A_987C), (PRIME_1, 0x261E_8266_9F23_F74B)] {
            let all = (0..=numbers.len()).flat_map(|end| xxh64(&numbers[..end], seed).to_le_bytes());
            assert_eq!(xxh64(&all.collect::<Vec<u8>>(), 0), expected, "seed {seed:x}");
        }
    }
}
