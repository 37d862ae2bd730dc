//! A random choice among weighted items.
#![forbid(unsafe_code)]

use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// One of `weighted`, as often as its weight says; `None` where nothing has a weight.
pub(super) fn choose(
    random: &mut ChaCha8Rng,
    weighted: impl Iterator<Item = (u32, u64)> + Clone,
) -> Option<u32> {
    let total = weighted.clone().fold(0_u64, |sum, (_, weight)| sum.saturating_add(weight));
    if total == 0 {
        return None;
    }
    let mut at = random.random_range(0..total);
    weighted.into_iter().find_map(|(item, weight)| {
        if at < weight {
            return Some(item);
        }
        at -= weight;
        None
    })
}
