//! Checks of what is deployed, as far as they go without a cloud: Terraform, user data, the unit, the images.
//! **What cannot be checked here is said loudly, and is no success.**

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, bail};

use crate::deploy::{self, Environment};
use crate::setup::{self, python};
use crate::{repo, wasm};

pub mod boot;
mod monitoring;
mod terraform;
mod unit;

const NOT_BUILT: &str = "the Worker is not built: `cargo xtask test` builds it first";
/// What checkov looks at.
const FRAMEWORKS: [&str; 3] = ["terraform", "dockerfile", "github_actions"];
/// What every environment of wrangler.toml must have: it inherits none.
const BINDINGS: [&str; 6] = ["ROOM", "FLEET", "DIRECTORY", "JOIN_LIMIT", "DOOR_LIMIT", "ASSETS"];

/// How a check ended, unless it failed.
pub(crate) enum Outcome {
    /// All is as it should be.
    Passed,
    /// Not looked at, and what is missing for it.
    Skipped(String),
}

/// A check that counts as one test.
pub(crate) struct Check {
    /// What is looked at.
    pub(crate) name: String,
    /// Looks.
    pub(crate) run: Box<dyn FnOnce() -> Result<Outcome>>,
}

impl Check {
    fn new(name: impl Into<String>, run: impl FnOnce() -> Result<Outcome> + 'static) -> Self {
        Self { name: name.into(), run: Box::new(run) }
    }
}

/// What the node-config module tells a machine, made from these inputs of it.
///
/// # Errors
/// Terraform is not there, or refuses them.
pub fn user_data(inputs: &serde_json::Value) -> Result<String> {
    terraform::render("boot", &inputs.to_string()).map(|(user_data, _)| user_data)
}

/// Everything there is to check, in order.
pub(crate) fn checks() -> Vec<Check> {
    let mut checks = vec![Check::new("tools of the infrastructure checks", || {
        setup::for_infra()?;
        Ok(Outcome::Passed)
    })];
    checks.extend(terraform::checks());
    checks.push(Check::new("release pins", terraform::pins));
    checks.push(Check::new("cloud-init schema", unit::user_data));
    checks.push(Check::new("systemd unit", unit::unit));
    checks.push(Check::new("checkov", checkov));
    checks.push(Check::new("shellcheck", shellcheck));
    checks.push(Check::new("alert rules", monitoring::alerts));
    checks.push(Check::new("dashboard", monitoring::dashboard));
    checks.push(Check::new("certificates by ACME", certificates));
    checks
}

/// What only a built stack shows: wrangler takes wrangler.toml, for each environment, and a Worker of this
/// size; a machine boots into a node.
pub(crate) fn checks_of_worker() -> Vec<Check> {
    let check = |environment: Environment| {
        Check::new(format!("wrangler deploy --dry-run: {}", environment.name()), move || {
            let Some(script) = script() else { return Ok(Outcome::Skipped(NOT_BUILT.to_owned())) };
            let output = deploy::dry_run(environment, Some(script))?;
            for binding in BINDINGS {
                if !output.contains(&format!("env.{binding} ")) {
                    bail!("{} has no {binding}:\n{output}", environment.name());
                }
            }
            Ok(Outcome::Passed)
        })
    };
    let mut checks: Vec<Check> = Environment::ALL.map(check).into();
    checks.push(Check::new("the Worker as it is deployed is not too large", || match script() {
        Some(_) => deploy::weigh(Environment::Production).map(|_| Outcome::Passed),
        None => Ok(Outcome::Skipped(NOT_BUILT.to_owned())),
    }));
    checks.push(Check::new("a machine boots into a node", || match script() {
        Some(_) => boot::check(),
        None => Ok(Outcome::Skipped(NOT_BUILT.to_owned())),
    }));
    checks
}

/// The Worker's script, if it is built.
fn script() -> Option<PathBuf> {
    let script = wasm::Profile::Dev.directory().join(wasm::SCRIPT);
    script.is_file().then_some(script)
}

/// The node gets a certificate from Pebble, the ACME server that Let's Encrypt tests with.
fn certificates() -> Result<Outcome> {
    if let Some(program) = ["pebble", "pebble-challtestsrv"].into_iter().find(|program| !setup::on_path(program)) {
        return Ok(Outcome::Skipped(format!("{program} is not installed")));
    }
    let mut cargo = repo::cargo();
    cargo.args(["test", "--package", "sfu-node", "--lib", "--", "--ignored", "--exact"]);
    let output = succeed(cargo.arg("tls::acme::tests::a_certificate_is_got_proven_by_tls_and_kept"))?;
    if !said(&output).contains("1 passed") {
        bail!("there is no such test any more:\n{}", said(&output));
    }
    Ok(Outcome::Passed)
}

/// Known weaknesses in Terraform, Containerfile and workflows; a finding passes only with a reason beside it.
fn checkov() -> Result<Outcome> {
    let program = python::CHECKOV.program("checkov");
    let tree = tree("checkov")?;
    // It knows the file by its name alone.
    fs::copy(repo::root().join("sfu-node/package/Containerfile"), tree.join("Dockerfile"))?;
    copy(&repo::root().join(".github"), &tree.join(".github"))?;
    if let Some((file, line)) = unexplained(&tree)?.first() {
        bail!("{}: no reason given: {line}", file.display());
    }
    let mut command = Command::new(program);
    command.args(["--quiet", "--compact", "--skip-download", "--framework"]).args(FRAMEWORKS).arg("--directory");
    let output = String::from_utf8(succeed(command.arg(&tree))?.stdout)?;
    match FRAMEWORKS.iter().find(|framework| !output.contains(&format!("{framework} scan results"))) {
        Some(framework) => bail!("checkov found no {framework} to look at:\n{output}"),
        None => Ok(Outcome::Passed),
    }
}

/// Lines that silence a finding without saying why.
fn unexplained(tree: &Path) -> Result<Vec<(PathBuf, String)>> {
    let mut found = Vec::new();
    for file in files(tree)? {
        let text = fs::read_to_string(&file)?;
        let silenced = text.lines().filter_map(|line| line.split_once("checkov:skip="));
        let bare = silenced.filter(|(_, rest)| rest.split_once(':').is_none_or(|(_, reason)| reason.trim().is_empty()));
        found.extend(bare.map(|(_, rest)| (file.clone(), rest.to_owned())));
    }
    Ok(found)
}

fn shellcheck() -> Result<Outcome> {
    let scripts = [
        "terraform/modules/node-config/files/meridian-install",
        "sfu-node/package/postinst",
        "sfu-node/package/postrm",
        boot::SCRIPT_FILE,
    ];
    let mut command = Command::new("shellcheck");
    run_if_present(command.current_dir(repo::root()).args(scripts))
}

/// A fresh copy of the Terraform files: nothing that a run leaves behind gets into the working copy.
fn tree(name: &str) -> Result<PathBuf> {
    let target = state().join(name);
    let _ = fs::remove_dir_all(&target);
    copy(&repo::root().join("terraform"), &target)?;
    Ok(target)
}

fn copy(source: &Path, target: &Path) -> Result<()> {
    for file in files(source)? {
        let copy = target.join(file.strip_prefix(source)?);
        fs::create_dir_all(copy.parent().context("a file has a directory")?)?;
        fs::copy(&file, &copy).with_context(|| format!("copying {}", file.display()))?;
    }
    Ok(())
}

/// All files below a directory but Terraform's own.
fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries = fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))?;
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(".terraform") {
            continue;
        }
        if entry.file_type()?.is_dir() { found.extend(files(&entry.path())?) } else { found.push(entry.path()) }
    }
    found.sort();
    Ok(found)
}

/// Where checks work.
fn state() -> PathBuf {
    repo::state_dir().join("infra")
}

/// Runs a tool; an error holds all it said.
fn succeed(command: &mut Command) -> Result<Output> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        bail!("{program}: {}\n{}", output.status, said(&output));
    }
    Ok(output)
}

/// As [`succeed`], but a tool that this machine does not have skips the check.
fn run_if_present(command: &mut Command) -> Result<Outcome> {
    let program = command.get_program().to_string_lossy().into_owned();
    if !setup::on_path(&program) {
        return Ok(Outcome::Skipped(format!("{program} is not installed")));
    }
    succeed(command)?;
    Ok(Outcome::Passed)
}

fn said(output: &Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).trim().to_owned();
    format!("{}\n{}", text(&output.stdout), text(&output.stderr)).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cloud_modules_have_the_same_inputs_and_outputs() {
        let read = |cloud: &str, file: &str| {
            fs::read_to_string(repo::root().join("terraform/modules").join(cloud).join(file)).unwrap()
        };
        for file in ["variables.tf", "config.tf"] {
            for cloud in ["hcloud", "digitalocean"] {
                assert_eq!(read("aws", file), read(cloud, file), "{file} of {cloud}");
            }
        }
        for cloud in ["aws", "hcloud", "digitalocean"] {
            let outputs = read(cloud, "outputs.tf");
            for part in ["output \"nodes\"", " ipv4 ", " ipv6 ", " region "] {
                assert!(outputs.contains(part), "{part} of {cloud}");
            }
        }
    }

    #[test]
    fn a_silenced_finding_needs_a_reason() {
        let directory = std::env::temp_dir().join(format!("meridian-infra-test-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("a.tf"), "#checkov:skip=CKV_1: it is meant so\n#checkov:skip=CKV_2\n").unwrap();
        let found = unexplained(&directory).unwrap();
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!(found, [(directory.join("a.tf"), "CKV_2".to_owned())]);
    }

    #[test]
    fn every_threat_names_tests_that_exist() {
        let text = fs::read_to_string(repo::root().join("SECURITY.md")).unwrap();
        let mut sources = String::new();
        for directory in ["shared", "edge-signal", "sfu-node/src", "tests/system", "terraform"] {
            let tests = files(&repo::root().join(directory)).unwrap();
            let tests = tests.iter().filter(|file| file.extension().is_some_and(|end| end == "rs" || end == "hcl"));
            sources.extend(tests.map(|file| fs::read_to_string(file).unwrap()));
        }
        let rows = text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| threat"));
        let named: Vec<&str> = rows.filter_map(|row| row.rsplit('|').nth(1)).collect();
        assert!(named.len() > 20, "{named:?}");
        for cell in named {
            let tests: Vec<&str> = cell.split('`').skip(1).step_by(2).collect();
            assert!(!tests.is_empty(), "a threat without a test: {cell}");
            for test in tests {
                let there = sources.contains(&format!("fn {test}()")) || sources.contains(&format!("run \"{test}\""));
                assert!(there, "no test {test}");
            }
        }
    }

    #[test]
    fn terraform_files_stay_short() {
        for file in files(&repo::root().join("terraform")).unwrap() {
            let terraform = file.extension().is_some_and(|extension| extension == "tf");
            let lines = fs::read_to_string(&file).unwrap().lines().count();
            assert!(!terraform || lines <= 150, "{} has {lines} lines", file.display());
        }
    }
}
