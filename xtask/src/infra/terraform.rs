//! `terraform fmt`, `validate` and `test` of every module and example. Providers come from wherever the environment
//! says (`TF_CLI_CONFIG_FILE`, a mirror, or the registry); where they cannot be had, the check is skipped, loudly.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{Check, Outcome, said, state, succeed, tree};
use crate::package::sha256;
use crate::pin::Pin;
use crate::{repo, setup};

/// What the repository has; `.` is the whole fleet.
const MODULES: [&str; 8] = [
    ".",
    "modules/node-config",
    "modules/aws",
    "modules/hcloud",
    "modules/digitalocean",
    "modules/dns",
    "examples/one-region",
    "examples/global",
];
const MISSING: &str = "terraform is not installed: https://developer.hashicorp.com/terraform/install (1.9 or later)";
/// What `init` says when nobody gives it a provider.
const NO_PROVIDER: [&str; 3] =
    ["Failed to query available provider packages", "Failed to install provider", "could not connect to"];

pub(super) fn checks() -> Vec<Check> {
    if !setup::on_path("terraform") {
        return vec![Check::new("terraform", || Ok(Outcome::Skipped(MISSING.to_owned())))];
    }
    let format = || {
        succeed(terraform(&repo::root().join("terraform"), "fmt").args(["fmt", "-check", "-diff", "-recursive"]))?;
        Ok(Outcome::Passed)
    };
    let mut checks = vec![Check::new("terraform fmt", format)];
    checks.extend(MODULES.map(|module| Check::new(format!("terraform test: {module}"), move || test(module))));
    checks
}

fn test(module: &'static str) -> Result<Outcome> {
    let name = name(module);
    let tree = tree(&format!("test-{name}"))?;
    let directory = tree.join(module);
    if fs::read_dir(directory.join("tests")).map_or(0, Iterator::count) == 0 {
        bail!("{module} has no tests");
    }
    let init = terraform(&directory, &name).args(["init", "-backend=false", "-input=false", "-no-color"]).output()?;
    if !init.status.success() {
        let text = said(&init);
        if NO_PROVIDER.iter().any(|message| text.contains(message)) {
            let hint = "its providers cannot be had: set TF_CLI_CONFIG_FILE to a file that names a mirror";
            return Ok(Outcome::Skipped(hint.to_owned()));
        }
        bail!("terraform init: {text}");
    }
    succeed(terraform(&directory, &name).args(["validate", "-no-color"]))?;
    let output = succeed(terraform(&directory, &name).args(["test", "-no-color"]))?;
    let text = said(&output);
    let summary = text.lines().find(|line| line.starts_with("Success!")).context("terraform test ran no tests")?;
    println!("  {module}: {summary}");
    Ok(Outcome::Passed)
}

/// What `cargo xtask pin` writes of packages is what a machine checks them against.
pub(super) fn pins() -> Result<Outcome> {
    if !setup::on_path("terraform") {
        return Ok(Outcome::Skipped(MISSING.to_owned()));
    }
    let directory = state().join("packages");
    fs::create_dir_all(&directory)?;
    let package = directory.join("sfu-node_1.4.0-1_arm64.deb");
    fs::write(&package, "a package")?;
    let pin = Pin { url: "https://example.com/v{version}".to_owned(), directory };
    let inputs = r#"{ "name": "fra-1", "edge_url": "https://meet.example.com", "region": "fra", "arch": "arm64",
        "place": { "latitude": 50.1, "longitude": 8.7 } }"#;
    let (user_data, _) = render_pinned("pins", inputs, &pin.release("1.4.0")?)?;
    for pinned in ["https://example.com/v1.4.0/sfu-node_1.4.0-1_arm64.deb".to_owned(), sha256(&package)?] {
        if !user_data.contains(&pinned) {
            bail!("the user data has no {pinned}:\n{user_data}");
        }
    }
    Ok(Outcome::Passed)
}

/// What the node-config module makes of its example: user data, and the drop-in over the unit. `None` without Terraform.
pub(super) fn rendered() -> Result<Option<(String, String)>> {
    if !setup::on_path("terraform") {
        return Ok(None);
    }
    let example = fs::read_to_string(repo::root().join("terraform/modules/node-config/tests/example.tfvars.json"))?;
    render("render", &example).map(Some)
}

/// What the node-config module makes of these inputs (JSON): user data, and the drop-in over the unit.
pub(super) fn render(name: &str, inputs: &str) -> Result<(String, String)> {
    render_pinned(name, inputs, "")
}

/// As [`render`], with `release.tfvars` over the inputs.
fn render_pinned(name: &str, inputs: &str, release: &str) -> Result<(String, String)> {
    let directory = tree(name)?.join("modules/node-config");
    fs::write(directory.join("inputs.tfvars.json"), inputs)?;
    fs::write(directory.join("release.tfvars"), release)?;
    let run = |arguments: &[&str]| succeed(terraform(&directory, name).args(arguments));
    run(&["init", "-backend=false", "-input=false", "-no-color"])?;
    run(&[
        "apply",
        "-auto-approve",
        "-input=false",
        "-no-color",
        "-var-file=inputs.tfvars.json",
        "-var-file=release.tfvars",
    ])?;
    let output = |name: &str| Ok::<_, anyhow::Error>(String::from_utf8(run(&["output", "-raw", name])?.stdout)?);
    Ok((output("user_data")?, output("unit_drop_in")?))
}

fn terraform(directory: &Path, name: &str) -> Command {
    let mut command = Command::new("terraform");
    command.current_dir(directory).env("TF_DATA_DIR", data(name)).env("CHECKPOINT_DISABLE", "1");
    // Each module's providers are fetched once; the cache must be there before Terraform is.
    let cache = state().join("plugins");
    if std::env::var_os("TF_PLUGIN_CACHE_DIR").is_none() && fs::create_dir_all(&cache).is_ok() {
        command.env("TF_PLUGIN_CACHE_DIR", cache).env("TF_PLUGIN_CACHE_MAY_BREAK_DEPENDENCY_LOCK_FILE", "1");
    }
    command
}

fn data(name: &str) -> PathBuf {
    state().join("data").join(name)
}

fn name(module: &str) -> String {
    if module == "." { "fleet".to_owned() } else { module.replace('/', "-") }
}
