//! A quantity over the course of a stream, in a bounded number of points.
//!
//! Every `step`-th event is kept; when there are too many points, every other one goes and `step`
//! doubles. The peak is therefore not on the curve in general: it is reported apart.
#![forbid(unsafe_code)]

use serde::Serialize;

const MOST: usize = 1024;

/// Live memory at one point of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct CurvePoint {
    /// Events before this point.
    pub event: u64,
    /// When, where the trace has times.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_ns: Option<u64>,
    /// Requested bytes of live objects.
    pub live_bytes: u64,
    /// Live objects.
    pub live_objects: u64,
    /// Threads alive.
    pub threads: u64,
}

/// The curve so far.
#[derive(Clone, Debug)]
pub struct Curve {
    points: Vec<CurvePoint>,
    step: u64,
}

impl Default for Curve {
    fn default() -> Self {
        Curve { points: Vec::new(), step: 1 }
    }
}

impl Curve {
    /// Whether a point at this event would be kept.
    #[must_use]
    pub fn wants(&self, event: u64) -> bool {
        event.is_multiple_of(self.step)
    }

    /// Adds a point; they come in ascending order of `event`.
    pub fn push(&mut self, point: CurvePoint) {
        self.points.push(point);
        if self.points.len() > MOST {
            self.step *= 2;
            let step = self.step;
            self.points.retain(|point| point.event.is_multiple_of(step));
        }
    }

    /// The points, at most 1,024, ending with `last`.
    #[must_use]
    pub fn finish(mut self, last: CurvePoint) -> Vec<CurvePoint> {
        if self.points.last().is_none_or(|point| point.event < last.event) {
            self.points.push(last);
        }
        self.points
    }
}
