//! The registry of agent workers as workers and rooms see it. Every event is handled twice: by the registry that lives on,
//! and by one restored from its rows and its workers' sockets; effects, rows, news and deadlines have to be the same.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test may panic"
)]

mod offering;
mod random_events;
mod world;
