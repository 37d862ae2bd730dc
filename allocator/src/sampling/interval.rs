//! How far it is to the next sample: random distances in bytes, exponential with the mean that
//! `sample=BYTES` gives.
//!
//! With equal distances a program that allocates in a rhythm could have all its samples at one place,
//! or none. Exponential ones have no memory, so that every allocation of `size` bytes is a sample with
//! the probability `1 - exp(-size / mean)` whatever was before it, and whoever reads the profile can
//! count back.

#![forbid(unsafe_code)]

use crate::os;
use crate::sync::{AtomicU64, AtomicUsize, Ordering};

/// Mean distance in bytes; 0 while nothing is sampled.
static MEAN: AtomicUsize = AtomicUsize::new(0);
/// Where the sequence of random words is.
static RANDOM: AtomicU64 = AtomicU64::new(0);
/// The countdown of those who have none of their own, in bytes; 0 before the first.
static SHARED: AtomicUsize = AtomicUsize::new(0);

/// Mean distance in bytes; 0 while nothing is sampled.
#[inline(always)]
pub fn mean() -> usize {
    MEAN.load(Ordering::Relaxed)
}

/// Whether samples are being taken.
#[inline(always)]
pub(crate) fn is_on() -> bool {
    mean() != 0
}

pub(super) fn set_mean(bytes: usize) {
    if RANDOM.load(Ordering::Relaxed) == 0 {
        RANDOM.store(os::random_word(), Ordering::Relaxed);
    }
    if MEAN.swap(bytes, Ordering::Relaxed) != bytes {
        SHARED.store(0, Ordering::Relaxed);
    }
}

/// The next random word: Steele, Lea and Flood's splitmix64 (OOPSLA 2014).
fn random() -> u64 {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    mix(RANDOM.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP))
}

fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// A distance of at least 1 byte, exponential with this mean, for a random word.
fn distance(mean: usize, word: u64) -> usize {
    let steps = (word >> 11) + 1; // 1 to 2^53: as many as an f64 tells apart
    let doublings = steps.ilog2();
    let part = steps as f64 / (1u64 << doublings) as f64; // from 1 to below 2
    // ln(part) = 2 artanh(z): as z is at most a third, eight terms leave an error below 1e-8.
    let z = (part - 1.0) / (part + 1.0);
    let series = (0..8).rev().fold(0.0, |sum, n| sum * z * z + 1.0 / f64::from(2 * n + 1));
    let below_one = f64::from(53 - doublings) * core::f64::consts::LN_2 - 2.0 * z * series;
    ((below_one.max(0.0) * mean as f64) as usize).saturating_add(1)
}

fn draw() -> usize {
    distance(mean(), random())
}

/// Kinds of allocations that one [`Countdown`] tells apart.
pub(crate) const KINDS: usize = 40;

/// Bytes to go until the next sample, for each kind of allocation. Zeroed memory is a fresh one.
///
/// A kind of its own per size class makes it right to count the blocks of one class ahead of all
/// others: each class has a sequence of samples of its own, and together they are one of the same mean.
#[derive(Debug)]
pub(crate) struct Countdown {
    left: [usize; KINDS],
    /// The mean that those distances were drawn for.
    mean: usize,
}

impl Countdown {
    /// Allocations of `bytes` bytes before the one that will be a sample.
    pub(crate) fn room(&mut self, kind: usize, bytes: usize) -> usize {
        self.heed(mean());
        let Some(left) = self.left.get_mut(kind) else { return 0 };
        if *left == 0 {
            *left = draw();
        }
        (*left - 1).checked_div(bytes).unwrap_or(usize::MAX)
    }

    /// From here on distances are those of `mean`.
    #[inline(always)]
    fn heed(&mut self, mean: usize) {
        if self.mean != mean {
            (self.left, self.mean) = ([0; KINDS], mean);
        }
    }

    /// Counts `bytes` of allocations that are no samples: no more than [`room`](Self::room) said.
    pub(crate) fn pass(&mut self, kind: usize, bytes: usize) {
        if let Some(left) = self.left.get_mut(kind) {
            *left = left.saturating_sub(bytes).max(1);
        }
    }

    /// Counts one allocation; whether it is a sample.
    pub(crate) fn takes(&mut self, kind: usize, bytes: usize) -> bool {
        if self.room(kind, bytes) == 0 {
            if let Some(left) = self.left.get_mut(kind) {
                *left = draw();
            }
            return true;
        }
        self.pass(kind, bytes);
        false
    }
}

/// As [`Countdown::takes`], on one countdown for the whole process.
pub(crate) fn shared_takes(bytes: usize) -> bool {
    let mut left = SHARED.load(Ordering::Relaxed);
    loop {
        let whole = if left == 0 { draw() } else { left };
        let taken = whole <= bytes;
        let next = if taken { draw() } else { whole - bytes };
        let order = Ordering::Relaxed;
        match SHARED.compare_exchange_weak(left, next, order, order) {
            Ok(_) => return taken,
            Err(now) => left = now,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Distances of a sequence that is the same in every run.
    fn distances(mean: usize, count: u64) -> impl Iterator<Item = usize> {
        (1..=count).map(move |n| distance(mean, mix(n.wrapping_mul(0x9e37_79b9_7f4a_7c15))))
    }

    #[test]
    fn a_distance_is_the_logarithm_to_seven_places() {
        for steps in [1u64, 2, 3, 1000, 1 << 30, (1 << 52) + 12345, (1 << 53) - 1, 1 << 53] {
            let mean = 1usize << 40;
            let right = -(steps as f64 / (1u64 << 53) as f64).ln() * mean as f64;
            let ours = distance(mean, (steps - 1) << 11) as f64;
            assert!((ours - right).abs() <= right * 1e-7 + 1.0 + 1e-8 * mean as f64, "{steps}");
        }
    }

    #[test]
    fn distances_have_the_exponential_distribution() {
        const MEAN: usize = 524_288;
        const COUNT: u64 = 100_000;
        let mut sorted: std::vec::Vec<_> = distances(MEAN, COUNT).collect();
        // The standard deviation of the mean is its 316th part: six of them.
        let mean = sorted.iter().sum::<usize>() as f64 / COUNT as f64;
        assert!((mean / MEAN as f64 - 1.0).abs() < 0.019, "{mean}");
        sorted.sort_unstable();
        // Kolmogorov and Smirnov: beyond 3.3 / sqrt(n) in one of 10^9 sequences.
        let worst = sorted
            .iter()
            .enumerate()
            .map(|(n, &x)| {
                let right = 1.0 - (-(x as f64) / MEAN as f64).exp();
                (right - n as f64 / COUNT as f64).abs()
            })
            .fold(0.0, f64::max);
        assert!(worst < 3.3 / (COUNT as f64).sqrt(), "{worst}");
    }

    #[test]
    fn no_word_gives_a_distance_that_is_not_one() {
        for word in [0, 1, u64::MAX, 1 << 63] {
            for mean in [1, 524_288, usize::MAX] {
                assert!(distance(mean, word) >= 1);
            }
        }
        assert_eq!(distance(usize::MAX, 0), usize::MAX, "more than fits is as far as can be");
    }

    #[test]
    fn a_distance_drawn_for_another_mean_does_not_count() {
        let mut countdown = Countdown { left: [10_000; KINDS], mean: 1 << 30 };
        countdown.heed(1 << 30);
        assert_eq!(countdown.left, [10_000; KINDS]);
        countdown.heed(1 << 16);
        assert_eq!(countdown.left, [0; KINDS], "the next look draws anew");
    }

    #[test]
    fn counting_ahead_takes_the_same_samples_as_counting_one_by_one() {
        let left = [10_000; KINDS];
        let (mut ahead, mut single) =
            (Countdown { left, mean: mean() }, Countdown { left, mean: mean() });
        let room = ahead.room(3, 48);
        assert_eq!(room, 208, "the 209th block holds byte 10,000");
        ahead.pass(3, room * 48);
        assert_eq!(ahead.room(3, 48), 0);
        assert!((0..room).all(|_| !single.takes(3, 48)));
        assert!(single.takes(3, 48));
        assert_eq!(single.left[2], 10_000, "kinds are counted apart");
        assert_eq!(ahead.room(99, 1), 0, "a kind that there is not");
    }
}
