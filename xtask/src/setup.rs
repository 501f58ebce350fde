//! Setting the machine up, step by step. **A step that is done already costs one look.**

pub mod cargo_deb;
pub mod cargo_fuzz;
pub mod chromium;
pub mod node;
pub mod npm;
pub mod python;
pub mod wasm_bindgen;
pub mod wasm_target;

mod apt;
mod coturn;
mod from_source;
mod infra;
mod stamp;

use std::time::Instant;

use anyhow::Result;

/// One thing a machine needs.
struct Step {
    /// What it is, as the progress calls it.
    name: &'static str,
    /// Whether it is there. Fast: it runs each time.
    done: fn() -> bool,
    /// Puts it there, showing progress; an error is one line that says what to install.
    act: fn() -> Result<()>,
}

const NODE: Step = Step { name: "Node.js", done: node::is_present, act: node::refuse };
const NPM: Step = Step { name: "npm packages", done: npm::is_done, act: npm::install };
const WASM_TARGET: Step = Step { name: "WebAssembly target", done: wasm_target::is_present, act: wasm_target::install };
const WASM_BINDGEN: Step = Step { name: "wasm-bindgen", done: wasm_bindgen::is_done, act: wasm_bindgen::install };
const WRANGLER_NODE: Step =
    Step { name: "Node.js for wrangler", done: node::is_fit_for_wrangler, act: node::install_for_wrangler };
const CHROMIUM: Step = Step { name: "Chromium", done: chromium::is_present, act: chromium::install };
const COTURN: Step = Step { name: "TURN server", done: coturn::is_present, act: coturn::install };
const CARGO_DEB: Step = Step { name: "cargo-deb", done: cargo_deb::is_done, act: cargo_deb::install };
const CARGO_FUZZ: Step = Step { name: "cargo-fuzz", done: cargo_fuzz::is_done, act: cargo_fuzz::install };
const PYTHON: Step = Step { name: "Python clients", done: || python::SDKS.is_done(), act: || python::SDKS.install() };
const AGENTS: Step =
    Step { name: "Agents framework", done: || python::AGENTS.is_done(), act: || python::AGENTS.install() };
const INFRA_PROGRAMS: Step =
    Step { name: "programs that check what is deployed", done: infra::is_done, act: infra::install };
const CHECKOV: Step = Step { name: "checkov", done: || python::CHECKOV.is_done(), act: || python::CHECKOV.install() };

/// What building and running the stack on bare workerd needs.
///
/// # Errors
/// The first step that fails, in one line.
pub fn for_build() -> Result<()> {
    run(&[NODE, NPM, WASM_TARGET, WASM_BINDGEN])
}

/// [`for_build`], and what `wrangler dev` needs.
///
/// # Errors
/// The first step that fails, in one line.
pub fn for_wrangler() -> Result<()> {
    for_build()?;
    run(&[WRANGLER_NODE])
}

/// Everything: [`for_wrangler`], and what the system tests set beside it: clients, a TURN server.
///
/// # Errors
/// The first step that fails, in one line.
pub fn for_tests() -> Result<()> {
    for_wrangler()?;
    run(&[CHROMIUM, COTURN, PYTHON, AGENTS])
}

/// What fuzzing needs.
///
/// # Errors
/// When it cannot be installed, in one line.
pub fn for_fuzz() -> Result<()> {
    run(&[CARGO_FUZZ])
}

/// What packing the node needs.
///
/// # Errors
/// When it cannot be installed, in one line.
pub fn for_packages() -> Result<()> {
    run(&[CARGO_DEB])
}

/// What the checks of Terraform, unit and images need and can be had here.
///
/// # Errors
/// The first step that fails, in one line.
pub fn for_infra() -> Result<()> {
    run(&[INFRA_PROGRAMS, CHECKOV])
}

/// Whether the PATH has this program.
pub(crate) fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

fn run(steps: &[Step]) -> Result<()> {
    for step in steps.iter().filter(|step| !(step.done)()) {
        let started = Instant::now();
        eprintln!("setup: {}", step.name);
        (step.act)()?;
        eprintln!("setup: {} ready in {:.1} s", step.name, started.elapsed().as_secs_f32());
    }
    Ok(())
}
