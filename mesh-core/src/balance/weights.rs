//! Indices in proportion to their weights, in constant time.

use super::spread::whole;

/// A table from which an index is drawn with one random number, whatever the weights. (Vose's alias method, 1991)
#[derive(Debug)]
pub(crate) struct Weights {
    len: usize,
    /// Empty where all weigh the same. Else, for each index: below this of 2^32 it is taken, from there on its alias.
    table: Box<[(u32, u32)]>,
}

impl Weights {
    /// Weights that are greater than 0; their number is below 2^32.
    pub(crate) fn new(weights: &[f64]) -> Self {
        let (len, total) = (weights.len(), weights.iter().sum::<f64>());
        let equal = weights.windows(2).all(|pair| matches!(pair, [a, b] if a == b));
        if equal || total <= 0.0 {
            return Self { len, table: Box::default() };
        }
        let mut scaled: Vec<f64> = weights.iter().map(|weight| weight * len as f64 / total).collect();
        // An index that nothing is left for is its own alias.
        let mut table: Box<[(u32, u32)]> = (0..len).map(|index| (u32::MAX, index as u32)).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) =
            (0..len).partition(|index| scaled.get(*index).is_some_and(|weight| *weight < 1.0));
        while let (Some(light), Some(heavy)) = (small.pop(), large.last().copied()) {
            let share = scaled.get(light).copied().unwrap_or_default();
            if let Some(entry) = table.get_mut(light) {
                *entry = (whole(share * 4_294_967_296.0) as u32, heavy as u32);
            }
            if let Some(rest) = scaled.get_mut(heavy) {
                *rest -= 1.0 - share;
                if *rest < 1.0 {
                    large.pop();
                    small.push(heavy);
                }
            }
        }
        Self { len, table }
    }

    /// Whether all weigh the same.
    #[inline]
    pub(crate) fn equal(&self) -> bool {
        self.table.is_empty()
    }

    /// An index, from 64 random bits.
    #[inline]
    pub(crate) fn draw(&self, random: u64) -> usize {
        let product = u128::from(random) * self.len as u128;
        let index = (product >> 64) as usize;
        match self.table.get(index) {
            // Given the index, the fraction is as random as the whole was.
            Some((below, alias)) if (product as u64 >> 32) as u32 >= *below => *alias as usize,
            _ => index,
        }
    }

    /// Two indices from 64 random bits; distinct where all weigh the same and there are two. Fewer than 2^32 of them.
    #[inline]
    pub(crate) fn pair(&self, random: u64) -> (usize, usize) {
        // Each half of the number is scaled to its range.
        let scaled = |half: u64, range: usize| half * range as u64;
        let (high, low) = (random >> 32, random & u64::from(u32::MAX));
        if self.equal() && self.len > 1 {
            let a = (scaled(high, self.len) >> 32) as usize;
            let b = (scaled(low, self.len - 1) >> 32) as usize;
            return (a, if b >= a { b + 1 } else { b });
        }
        // Both halves lose a few bits to the index, and an index among many has few left for its share: 2^-12 of it for
        // a million endpoints.
        let one = |half| {
            let product = scaled(half, self.len);
            let index = (product >> 32) as usize;
            match self.table.get(index) {
                Some((below, alias)) if product as u32 >= *below => *alias as usize,
                _ => index,
            }
        };
        (one(high), one(low))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn draws_follow_the_weights_alone_and_in_pairs() {
        for weights in [vec![1.0, 1.0, 1.0], vec![1.0, 3.0], vec![5.0, 1.0, 1.0, 93.0], vec![65_535.0, 1.0, 1.0]] {
            let (table, rng, total) = (Weights::new(&weights), Rng::seeded(3), weights.iter().sum::<f64>());
            let mut counts = vec![(0.0, 0.0); weights.len()];
            for _ in 0..100_000 {
                counts[table.draw(rng.next_u64())].0 += 1.0;
                let (a, b) = table.pair(rng.next_u64());
                assert!(!table.equal() || a != b);
                counts[a].1 += 0.5;
                counts[b].1 += 0.5;
            }
            for (weight, (alone, paired)) in weights.iter().zip(counts) {
                let expected = 100_000.0 * weight / total;
                let slack = 4.0 * expected.sqrt() + 1.0;
                assert!((alone - expected).abs() < slack, "{weights:?}: {alone} for {expected}");
                assert!((paired - expected).abs() < slack, "{weights:?}: {paired} for {expected} in pairs");
            }
        }
    }
}
