//! From paired timings to a verdict: PASS, FAIL or INCONCLUSIVE, at a stated error rate.
//!
//! Pure statistics, no I/O, no clock, no unsafe code. From the ground up:
//!
//! | module | what it holds |
//! |---|---|
//! | [`block`] | four fresh processes in the order ABBA or BAAB, and their one difference |
//! | [`signed_rank`] | Wilcoxon's exact one-sided signed-rank test |
//! | [`location`] | the Hodges–Lehmann estimate and its exact confidence interval |
//! | [`binomial`] | exact (Clopper–Pearson) bounds for a rate, as `calibrate` states them |
//! | [`rules`] | the numbers of the two-stage procedure, and what they decide on given differences |
//! | [`procedure`] | the procedure itself: which block is run next, and when it ends |
//! | [`changes`] | change points of a series |
//! | [`words`] | the sentence that a person reads |
//!
//! # Why these tests
//! The unit is the process: timings inside one process share its address space layout and are not
//! independent, so intervals over them are too narrow. Four processes form a block, because A and B
//! then meet the same minutes of the machine and a linear drift cancels. The blocks' differences
//! are symmetric under the null hypothesis by the coin that orders each block, whatever the noise
//! looks like: that is what the signed-rank test needs, and all it needs.
//!
//! The false-alarm rate and the power over quiet, noisy and hostile noise are tested by simulation
//! in `simulation`.

pub mod binomial;
pub mod block;
pub mod changes;
pub mod location;
pub mod procedure;
pub mod rules;
pub mod signed_rank;
#[cfg(test)]
mod simulation;
pub mod words;
