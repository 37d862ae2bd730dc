//! A hash map keyed by addresses and other integers: one multiplication per look-up, seeded per
//! process so that no trace can be written to make it slow.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::OnceLock;

/// A map from integers.
pub(crate) type IntMap<K, V> = HashMap<K, V, IntState>;

/// The seed all maps of this process share.
#[derive(Clone, Debug)]
pub(crate) struct IntState(u64);

impl Default for IntState {
    fn default() -> Self {
        static SEED: OnceLock<u64> = OnceLock::new();
        IntState(*SEED.get_or_init(|| RandomState::new().hash_one(0_u8)))
    }
}

impl BuildHasher for IntState {
    type Hasher = IntHasher;

    fn build_hasher(&self) -> IntHasher {
        IntHasher(self.0)
    }
}

/// Folds the 128-bit product of the key and an odd constant.
#[derive(Debug)]
pub(crate) struct IntHasher(u64);

impl Hasher for IntHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u32(&mut self, key: u32) {
        self.write_u64(u64::from(key));
    }

    fn write_u64(&mut self, key: u64) {
        let product = u128::from(key ^ self.0) * 0x9e37_79b9_7f4a_7c15;
        let [low, high] = [product as u64, (product >> 64) as u64];
        self.0 = low ^ high;
    }
}
