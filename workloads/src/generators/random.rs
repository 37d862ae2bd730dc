//! The one random generator: ChaCha with 8 rounds, and integers drawn from it by rules of our own,
//! so that no library's version changes a stream.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// Random choices of one worker.
#[derive(Clone, Debug)]
pub struct Random(ChaCha8Rng);

impl Random {
    /// The choices of `worker` under `seed`. Different workers' choices are independent.
    #[must_use]
    pub fn new(seed: u64, worker: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(worker);
        Random(rng)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `limit`; 0 if `limit` is 0. The bias is less than `limit` ÷ 2^64.
    pub fn below(&mut self, limit: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(limit)) >> 64) as u64
    }

    /// An index below `length`.
    pub fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap_or(0)
    }

    /// True in `share` of all cases.
    pub fn chance(&mut self, share: f64) -> bool {
        // Exactly rounded operations only: 53 bits against a product.
        ((self.bits() >> 11) as f64) < share * (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_yields_the_same_numbers_for_ever() {
        let mut random = Random::new(1, 0);
        let golden = [random.bits(), random.bits(), random.below(1000), random.below(1000)];
        assert_eq!(golden, GOLDEN);
        let mut other = Random::new(1, 1);
        assert_ne!(other.bits(), golden[0]);
    }

    const GOLDEN: [u64; 4] = [7_424_550_030_962_593_201, 1_482_817_706_323_250_795, 596, 219];

    #[test]
    fn a_chance_is_taken_about_as_often_as_it_says() {
        let mut random = Random::new(7, 0);
        let taken = (0..10_000).filter(|_| random.chance(0.25)).count();
        assert!((2300..2700).contains(&taken), "{taken}");
        assert!(!random.chance(0.0) && random.chance(1.0));
    }
}
