//! Orders by name: how much of a stream's total order a replay keeps.
#![forbid(unsafe_code)]

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How much of the stream's total order a replay keeps.
///
/// All of them keep the order within a thread, the order of uses of one object, and the order in
/// which threads are born.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Order {
    /// Nothing more: threads run as free as the program allowed.
    Deps,
    /// No event starts before every event at least this many places earlier is done.
    Window(u64),
    /// The stream is cut into pieces of this many events; a piece starts when the last one is done.
    Epoch(u64),
    /// One event at a time, exactly as in the stream.
    Strict,
}

impl Order {
    /// The order for traces unless told otherwise: peak live bytes within a fraction of a percent
    /// of the trace's, at a few stalls per hundred operations.
    pub const DEFAULT_WINDOW: Order = Order::Window(4096);
}

impl Default for Order {
    fn default() -> Self {
        Order::DEFAULT_WINDOW
    }
}

/// An order that is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{given}` is not an order: deps, window:N (N at least 4), epoch:N (N at least 1) or strict"
)]
pub struct OrderError {
    /// What was given.
    pub given: String,
}

impl FromStr for Order {
    type Err = OrderError;

    fn from_str(given: &str) -> Result<Self, OrderError> {
        let count = |text: &str, least: u64| {
            text.parse().ok().filter(|&n: &u64| n >= least && n <= u64::from(u32::MAX))
        };
        match given.split_once(':') {
            None if given == "deps" => Some(Order::Deps),
            None if given == "strict" => Some(Order::Strict),
            None if given == "window" => Some(Order::DEFAULT_WINDOW),
            Some(("window", n)) => count(n, 4).map(Order::Window),
            Some(("epoch", n)) => count(n, 1).map(Order::Epoch),
            _ => None,
        }
        .ok_or_else(|| OrderError { given: given.to_owned() })
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Order::Deps => f.write_str("deps"),
            Order::Window(n) => write!(f, "window:{n}"),
            Order::Epoch(n) => write!(f, "epoch:{n}"),
            Order::Strict => f.write_str("strict"),
        }
    }
}

impl From<Order> for String {
    fn from(order: Order) -> String {
        order.to_string()
    }
}

impl TryFrom<String> for Order {
    type Error = OrderError;

    fn try_from(text: String) -> Result<Self, OrderError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_order_is_read_back_from_its_own_name() {
        for order in [Order::Deps, Order::Window(64), Order::Epoch(1), Order::Strict] {
            assert_eq!(order.to_string().parse(), Ok(order));
        }
    }

    #[test]
    fn a_name_that_is_no_order_is_an_error_that_lists_the_orders() {
        for wrong in ["", "windows:8", "window:", "window:3", "epoch:0", "window:-1", "strict:2"] {
            let error = wrong.parse::<Order>().unwrap_err();
            assert!(error.to_string().contains("window:N"), "{error}");
        }
    }
}
