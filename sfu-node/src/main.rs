//! The media node.

pub mod media;

fn main() {}
