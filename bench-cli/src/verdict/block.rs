//! Four fresh processes, two of each side, ordered by a coin; and the one number they yield.
//!
//! In ABBA as in BAAB both sides have the same mean position, so whatever grows linearly while the
//! block runs cancels. The coin makes the difference symmetric about zero when A and B are alike.

#![forbid(unsafe_code)]

use rand::Rng;
use serde::{Deserialize, Serialize};

/// Which of the two libraries a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The library that is the reference: the base of a change.
    A,
    /// The library that is judged: the head of a change.
    B,
}

impl Side {
    /// The name of the side in files and messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Side::A => "base",
            Side::B => "head",
        }
    }
}

/// The order of a block's four processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// base, head, head, base
    Abba,
    /// head, base, base, head
    Baab,
}

impl Order {
    /// Tosses the coin.
    pub fn toss(rng: &mut impl Rng) -> Self {
        if rng.random::<bool>() { Order::Abba } else { Order::Baab }
    }

    /// The sides in the order in which they run.
    #[must_use]
    pub fn sides(self) -> [Side; 4] {
        match self {
            Order::Abba => [Side::A, Side::B, Side::B, Side::A],
            Order::Baab => [Side::B, Side::A, Side::A, Side::B],
        }
    }

    /// The name of the order in files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Order::Abba => "abba",
            Order::Baab => "baab",
        }
    }
}

/// What a block measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Block {
    /// The order in which the processes ran.
    pub order: Order,
    /// The time of each process, in the order in which they ran. Any unit; positive and finite.
    pub times: [f64; 4],
}

impl Block {
    /// mean ln(time of B) − mean ln(time of A): positive when B is slower.
    /// `None` where a time is not positive and finite.
    #[must_use]
    pub fn difference(&self) -> Option<f64> {
        let mut difference = 0.0;
        for (side, time) in self.order.sides().into_iter().zip(self.times) {
            if !(time.is_finite() && time > 0.0) {
                return None;
            }
            difference += match side {
                Side::A => -time.ln() / 2.0,
                Side::B => time.ln() / 2.0,
            };
        }
        Some(difference)
    }
}

/// A difference of logarithms as a share: 0.0488 becomes 0.05.
#[must_use]
pub fn share_of(difference: f64) -> f64 {
    difference.exp_m1()
}

/// A share as a difference of logarithms: 0.05 becomes 0.0488.
#[must_use]
pub fn log_of(share: f64) -> f64 {
    share.ln_1p()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn a_block_of_a_twice_as_slow_head_differs_by_the_logarithm_of_two_in_either_order() {
        let abba = Block { order: Order::Abba, times: [3.0, 6.0, 6.0, 3.0] };
        let baab = Block { order: Order::Baab, times: [6.0, 3.0, 3.0, 6.0] };
        for block in [abba, baab] {
            assert!((block.difference().unwrap() - 2.0_f64.ln()).abs() < 1e-12);
        }
    }

    #[test]
    fn a_machine_that_slows_down_steadily_does_not_count_as_a_difference() {
        let times = [0.0, 1.0, 2.0, 3.0].map(|step| 100.0 * f64::exp(0.03 * step));
        for order in [Order::Abba, Order::Baab] {
            assert!(Block { order, times }.difference().unwrap().abs() < 1e-12);
        }
    }

    #[test]
    fn a_time_that_is_no_time_gives_no_difference() {
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(
                Block { order: Order::Abba, times: [1.0, 1.0, bad, 1.0] }.difference(),
                None
            );
        }
    }

    #[test]
    fn the_coin_is_fair_and_repeats_with_its_seed() {
        let tosses = |seed| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            (0..1000).map(|_| Order::toss(&mut rng)).collect::<Vec<_>>()
        };
        assert_eq!(tosses(7), tosses(7));
        let heads = tosses(7).iter().filter(|o| **o == Order::Abba).count();
        assert!((430..570).contains(&heads), "{heads} of 1000");
    }
}
