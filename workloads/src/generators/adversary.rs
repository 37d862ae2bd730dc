//! Fragmentation adversaries.
//!
//! Sources of the shapes: Robson, "Bounds for Some Functions Concerning Dynamic Storage
//! Allocation" (1974), of which `robson` is a simplified player that does not see addresses;
//! Wilson et al., "Dynamic Storage Allocation: A Survey and Critical Review" (1995), for plateaus,
//! ramps and drift.

use serde::Deserialize;
use traces::ObjectId;

use super::distribution::Distribution;
use super::emitter::Emitter;
use super::random::Random;
use super::source::Workload;

/// A single thread that leaves holes.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "shape", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Adversary {
    /// Fill with objects of 2^i bytes, release all but every `keep`-th, go on with 2^(i+1).
    Robson {
        /// Bytes of the first objects.
        smallest: u64,
        /// Doublings.
        steps: u32,
        /// Bytes allocated in each step.
        step_bytes: u64,
        /// One in so many stays.
        keep: u32,
    },
    /// Ramps up to a peak and down again, in random order of release.
    Sawtooth {
        /// Bytes of an object.
        bytes: Distribution,
        /// Objects at the peak.
        objects: u32,
        /// Share that stays from one ramp to the next.
        stays: f64,
        /// Ramps in one body.
        ramps: u32,
    },
    /// A plateau with exchanges, then almost everything is released and the rest stays.
    PlateauDrain {
        /// Bytes of an object.
        bytes: Distribution,
        /// Objects on the plateau.
        objects: u32,
        /// Exchanges on the plateau.
        exchanges: u32,
        /// Share that stays after the drain.
        stays: f64,
    },
    /// Exchanges whose sizes drift upwards, so that no hole fits what comes next.
    SizeDrift {
        /// Bytes at the beginning.
        smallest: u64,
        /// Bytes at the end.
        largest: u64,
        /// Objects alive.
        objects: u32,
        /// Exchanges from the beginning to the end.
        exchanges: u32,
    },
}

/// [`Adversary`] at work. What stays, stays for the next body, so the stream is not folded.
#[derive(Debug)]
pub(crate) struct AdversaryWorkload {
    spec: Adversary,
    random: Random,
    living: Vec<ObjectId>,
}

impl AdversaryWorkload {
    pub(crate) fn new(spec: Adversary, seed: u64) -> Self {
        AdversaryWorkload { spec, random: Random::new(seed, 0), living: Vec::new() }
    }

    /// Releases living objects at random until `left` are left.
    fn shrink(&mut self, left: usize, out: &mut Emitter) {
        while self.living.len() > left {
            let i = self.random.index(self.living.len());
            out.free(0, self.living.swap_remove(i));
        }
    }

    fn exchange(&mut self, size: u64, out: &mut Emitter) {
        let i = self.random.index(self.living.len());
        out.free(0, self.living[i]);
        self.living[i] = out.malloc(0, size);
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a count")]
fn share(count: u32, share: f64) -> usize {
    (f64::from(count) * share.clamp(0.0, 1.0)) as usize
}

impl Workload for AdversaryWorkload {
    fn folds(&self) -> bool {
        false
    }

    fn prologue(&mut self, out: &mut Emitter) {
        out.birth(None);
    }

    fn body(&mut self, out: &mut Emitter) {
        match self.spec.clone() {
            Adversary::Robson { smallest, steps, step_bytes, keep } => {
                for step in 0..steps {
                    let size = smallest.max(1) << step;
                    let batch: Vec<ObjectId> =
                        (0..(step_bytes / size).max(1)).map(|_| out.malloc(0, size)).collect();
                    for (i, object) in batch.into_iter().enumerate() {
                        if i % keep.max(1) as usize == 0 {
                            self.living.push(object);
                        } else {
                            out.free(0, object);
                        }
                    }
                }
                self.shrink(0, out);
            }
            Adversary::Sawtooth { bytes, objects, stays, ramps } => {
                for _ in 0..ramps {
                    while self.living.len() < objects as usize {
                        let size = bytes.draw(&mut self.random);
                        self.living.push(out.malloc(0, size));
                    }
                    self.shrink(share(objects, stays), out);
                }
            }
            Adversary::PlateauDrain { bytes, objects, exchanges, stays } => {
                while self.living.len() < objects as usize {
                    let size = bytes.draw(&mut self.random);
                    self.living.push(out.malloc(0, size));
                }
                for _ in 0..exchanges {
                    let size = bytes.draw(&mut self.random);
                    self.exchange(size, out);
                }
                self.shrink(share(objects, stays), out);
            }
            Adversary::SizeDrift { smallest, largest, objects, exchanges } => {
                while self.living.len() < objects as usize {
                    self.living.push(out.malloc(0, smallest));
                }
                let span = largest.saturating_sub(smallest);
                for n in 0..exchanges {
                    // Both factors may need more than half of 64 bits.
                    let drift = u128::from(span) * u128::from(n) / u128::from(exchanges.max(1));
                    let drift = drift as u64;
                    let size = smallest + drift + self.random.below(smallest / 4 + 1);
                    self.exchange(size, out);
                }
            }
        }
    }

    fn epilogue(&mut self, out: &mut Emitter) {
        // Programs end with what they hold: the last objects are not released, so that what is
        // retained can be compared with what is still needed.
        let _ = out;
    }
}
