//! The media node.

#![allow(dead_code)]
pub mod media;
mod session;

fn main() {}
