//! Which process comes when.
//!
//! Rounds are outermost, so that a machine that grows warm or busy disturbs all alike. Within a
//! round the allocators of one subject and pass stand next to each other, in a random order that
//! the next round reverses: a drift within a round cancels.
#![forbid(unsafe_code)]

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// One process to be run: indices into the session's subjects, passes and allocators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot {
    /// Which subject.
    pub subject: usize,
    /// Which pass.
    pub pass: usize,
    /// Which allocator.
    pub allocator: usize,
    /// Which round, from 0.
    pub round: u32,
}

/// All processes of a session in their order. `rounds[p]` is the number of rounds of pass `p`.
#[must_use]
pub fn schedule(subjects: usize, rounds: &[u32], allocators: usize, seed: u64) -> Vec<Slot> {
    let mut slots = Vec::new();
    let mut orders: Vec<Vec<usize>> = vec![(0..allocators).collect(); subjects * rounds.len()];
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    for round in 0..rounds.iter().copied().max().unwrap_or(0) {
        for subject in 0..subjects {
            for pass in (0..rounds.len()).filter(|pass| round < rounds[*pass]) {
                let order = &mut orders[subject * rounds.len() + pass];
                if round % 2 == 0 {
                    order.shuffle(&mut rng);
                } else {
                    order.reverse();
                }
                let slot = |&allocator: &usize| Slot { subject, pass, allocator, round };
                slots.extend(order.iter().map(slot));
            }
        }
    }
    slots
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_cell_runs_once_per_round_and_rounds_do_not_mix() {
        let slots = schedule(3, &[6, 2], 4, 7);
        assert_eq!(slots.len(), 3 * (6 + 2) * 4);
        assert_eq!(slots.iter().collect::<HashSet<_>>().len(), slots.len());
        assert!(slots.windows(2).all(|pair| pair[0].round <= pair[1].round));
    }

    #[test]
    fn two_rounds_put_every_allocator_at_the_same_mean_place() {
        let slots = schedule(1, &[2], 5, 3);
        for allocator in 0..5 {
            let places = slots.iter().enumerate().filter(|(_, s)| s.allocator == allocator);
            assert_eq!(places.map(|(place, _)| place).sum::<usize>(), 9);
        }
    }

    #[test]
    fn the_seed_decides_the_order() {
        assert_eq!(schedule(2, &[4], 5, 1), schedule(2, &[4], 5, 1));
        assert_ne!(schedule(2, &[4], 5, 1), schedule(2, &[4], 5, 2));
    }
}
