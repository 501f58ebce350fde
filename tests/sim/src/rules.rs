//! Rules that can be broken on purpose: a run that goes without one must be found out.

use clap::ValueEnum;

/// A rule that a run goes without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Rule {
    /// A room drops what a node says of an older session.
    Generations,
    /// A node closes the sessions that the room ends, or does not name in its welcome.
    Closings,
    /// A node whose room link broke says again what may be lost. **Shows in few seeds only.**
    Repetition,
    /// What goes into a pipe changes with who is to see it.
    PipeRefills,
    /// A room hears of a pipe that failed, and opens it anew. **Shows in few seeds only.**
    PipeFailures,
    /// Rooms hear of a node that is back near people who are served from afar.
    Returns,
    /// What the directory did not take it is told again.
    DirectoryRetries,
}
