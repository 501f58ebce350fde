//! `sfu-node`.

use std::process::ExitCode;

fn main() -> ExitCode {
    sfu_node::main()
}
