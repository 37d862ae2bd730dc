//! Generators that yield events, and the engine that executes events on threads.
