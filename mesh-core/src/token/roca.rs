//! RSA keys of a broken generator, told by their modulus. (ROCA, CVE-2017-15361)

/// Small primes by which the generator's primes leave telling remainders.
const PRIMES: [u32; 38] = [
    3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103, 107, 109,
    113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
];

/// The generator made its primes as `k * M + (65537^a mod M)`, with `M` the product of the first primes; so the modulus
/// is a power of 65537 modulo each of them. (Nemec and others, CCS 2017, section 3)
///
/// For another modulus that happens once in 2^27 or less often.
pub(super) fn is_weak(modulus: &[u8]) -> bool {
    PRIMES.iter().all(|prime| is_power(remainder(modulus, *prime), *prime))
}

fn remainder(modulus: &[u8], prime: u32) -> u32 {
    modulus.iter().fold(0, |rest, byte| ((rest << 8) | u32::from(*byte)) % prime)
}

/// Whether `number` is a power of 65537 modulo `prime`.
fn is_power(number: u32, prime: u32) -> bool {
    let mut power = 1;
    for _ in 0..prime {
        if power == number {
            return true;
        }
        power = power * (65_537 % prime) % prime;
    }
    false
}

/// 65537 to the power of `exponent`, which has the fingerprint by definition; big-endian.
#[cfg(test)]
pub(super) fn power_of_65537(exponent: usize) -> Vec<u8> {
    (0..exponent).fold(vec![1_u8], |number, _| {
        // Times 65537: added to itself two bytes up.
        let mut sum = [&number[..], &[0, 0]].concat();
        let mut carry = 0_u16;
        for (back, byte) in sum.iter_mut().rev().enumerate() {
            let low = number.len().checked_sub(back + 1).map_or(0, |at| number[at]);
            carry += u16::from(*byte) + u16::from(low);
            [_, *byte] = carry.to_be_bytes();
            carry >>= 8;
        }
        if carry > 0 {
            sum.insert(0, 1);
        }
        sum
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fingerprint_is_found_and_others_are_not() {
        let mut modulus = power_of_65537(100);
        assert_eq!(power_of_65537(2), [1, 0, 2, 0, 1]);
        assert!(is_weak(&modulus));
        let last = modulus.len() - 1;
        modulus[last] ^= 2;
        assert!(!is_weak(&modulus), "a control");
    }
}
