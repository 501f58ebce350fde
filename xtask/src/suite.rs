//! `cargo xtask test`: every check and every test, to the end, whatever fails on the way.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::num::NonZero;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::infra::{self, Check, Outcome};
use crate::setup::wasm_target;
use crate::stack::{Build, Profile};
use crate::{fuzz, hosts, page, progress, repo, setup, wasm};

const SYSTEM_TESTS: &str = "tests/system";
/// How modules of those begin whose nodes are on hosts of their own.
const ON_HOSTS: &str = "on_hosts_";
/// Modules beside which nothing runs: a busy machine freezes pictures too, and a signal reaches all of a process.
const ALONE: &[&str] =
    &["a_switch_a_second_freezes_nothing", "one_scalable_stream_serves_every_size", "benchmarks_end_what_they_start"];

/// All tests of a binary.
const NO_FILTER: &[&str] = &[];
/// Most tests that run once more by themselves because they failed beside others: more of them say something else.
const MOST_ALONE_AGAIN: usize = 3;

/// Run every check and test; closes with `N passed, N failed`.
#[derive(Args)]
pub struct Suite {
    /// Only the system tests whose module has this in its name, or whose compat row has.
    #[arg(long)]
    only: Option<String>,
    /// Only the checks of what is deployed: Terraform, unit, images.
    #[arg(long, conflicts_with = "only")]
    infra: bool,
}

#[derive(Default)]
struct Tally {
    passed: u32,
    failed: u32,
    /// Names of what failed, for the end.
    failures: Vec<String>,
    /// Names of what could not be looked at, and why.
    skipped: Vec<String>,
    /// Names of what failed beside others and passed by itself.
    unsociable: Vec<String>,
}

impl Suite {
    /// Runs it all.
    ///
    /// # Errors
    /// When setup fails, or anything failed: after the summary line.
    pub fn run(&self) -> Result<()> {
        let mut tally = Tally::default();
        if self.infra {
            tally.infra(infra::checks());
            tally.infra(infra::checks_of_worker());
            return tally.close();
        }
        if let Err(error) = setup::for_tests() {
            tally.fail("setup", &error);
            return tally.close();
        }
        if let Some(only) = &self.only {
            tally.build();
            tally.system_tests(|module| module.contains(only.as_str()));
            tally.tests_side_by_side("compat", &[only]);
            return tally.close();
        }
        tally.check("cargo fmt", repo::cargo().args(["fmt", "--all", "--check"]));
        tally.check("clippy", clippy().args(["--workspace", "--all-targets", "--", "-D", "warnings"]));
        match wasm_target::detect() {
            Some(source) => {
                tally.check("clippy for the Worker", wasm::cargo("clippy", source).args(["--", "-D", "warnings"]));
            }
            None => tally.fail("clippy for the Worker", &"no std for it"),
        }
        // A workspace of its own, which nothing else here builds.
        let of_fuzz = ["--manifest-path", fuzz::MANIFEST];
        tally.check("cargo fmt for the fuzz targets", repo::cargo().arg("fmt").args(of_fuzz).arg("--check"));
        let mut fuzz_targets = clippy();
        fuzz_targets.args(of_fuzz).args(["--locked", "--", "-D", "warnings"]);
        tally.check("clippy for the fuzz targets", &mut fuzz_targets);
        tally.infra(infra::checks());
        tally.tests("unit tests", cargo_test().args(["--workspace", "--exclude", "meridian-tests"]));
        tally.build();
        tally.infra(infra::checks_of_worker());
        tally.tests("unit tests of the system tests", system_tests().args(["--lib", "--bins"]));
        tally.system_tests(|_| true);
        tally.tests_side_by_side("compat", NO_FILTER);
        tally.close()
    }
}

fn clippy() -> Command {
    let mut cargo = repo::cargo();
    cargo.arg("clippy");
    cargo
}

fn cargo_test() -> Command {
    let mut cargo = repo::cargo();
    cargo.args(["test", "--no-fail-fast"]);
    cargo
}

fn system_tests() -> Command {
    let mut cargo = cargo_test();
    cargo.args(["--package", "meridian-tests"]);
    cargo
}

/// The tests of a binary, of those that have one of these in their names if there are any.
fn tests_of(binary: &str, filters: &[impl AsRef<str>]) -> Command {
    let mut command = system_tests();
    command.args(["--test", binary, "--"]).args(filters.iter().map(AsRef::as_ref));
    command
}

/// What selects a module's tests.
fn of_module(module: &str) -> String {
    format!("{module}::")
}

/// Browsers and processes wait more than they work: more tests at a time than CPUs.
fn side_by_side(command: &mut Command) -> &mut Command {
    let cpus = thread::available_parallelism().map_or(1, NonZero::get);
    command.env("RUST_TEST_THREADS", (cpus + cpus.div_ceil(2)).to_string())
}

/// The modules of the system tests, as their `main.rs` names them.
fn modules() -> Result<Vec<String>> {
    let main = repo::root().join(SYSTEM_TESTS).join("main.rs");
    let text = fs::read_to_string(&main).with_context(|| format!("reading {}", main.display()))?;
    Ok(text.lines().filter_map(|line| Some(line.strip_prefix("mod ")?.strip_suffix(';')?.to_owned())).collect())
}

impl Tally {
    /// One command that counts as one test.
    fn check(&mut self, name: &str, command: &mut Command) {
        let started = headline(name);
        match command.status() {
            Ok(status) if status.success() => {
                self.passed += 1;
                println!("{name}: ok, {:.0} s", started.elapsed().as_secs_f32());
            }
            Ok(status) => self.fail(name, &status),
            Err(error) => self.fail(name, &error),
        }
    }

    /// What is deployed, each check as one test.
    fn infra(&mut self, checks: Vec<Check>) {
        for Check { name, run } in checks {
            let started = headline(&name);
            match run() {
                Ok(Outcome::Passed) => {
                    self.passed += 1;
                    println!("{name}: ok, {:.0} s", started.elapsed().as_secs_f32());
                }
                Ok(Outcome::Skipped(reason)) => self.skip(&name, &reason),
                Err(error) => self.fail(&name, &format!("{error:#}")),
            }
        }
    }

    /// What the system tests start; built here so that no test waits for a compiler.
    fn build(&mut self) {
        headline("building what the system tests start");
        let built = Build::make(Profile::Dev).and_then(|_| page::build_test_page());
        // Where nodes are on hosts of their own, there is no network to fetch a crate from.
        let built = built.and_then(|_| {
            progress::run("building the system tests", system_tests().args(["--test", "system", "--no-run"]))
        });
        if let Err(error) = built {
            self.fail("build", &format!("{error:#}"));
        }
    }

    /// Modules of the system tests: those that bear company side by side, then each of the others by itself.
    fn system_tests(&mut self, wanted: impl Fn(&str) -> bool) {
        let modules = match modules() {
            Ok(modules) => modules.into_iter().filter(|module| wanted(module)),
            Err(error) => return self.fail("system tests", &format!("{error:#}")),
        };
        let bears_company = |module: &String| !module.starts_with(ON_HOSTS) && !ALONE.contains(&module.as_str());
        let (company, others): (Vec<_>, Vec<_>) = modules.partition(bears_company);
        if !company.is_empty() {
            let filters: Vec<String> = company.iter().map(|module| of_module(module)).collect();
            self.tests_side_by_side("system", &filters);
        }
        for module in others {
            let mut command = tests_of("system", &[of_module(&module)]);
            if !module.starts_with(ON_HOSTS) {
                self.tests(&module, &mut command);
                continue;
            }
            match hosts::impossible() {
                Ok(None) => self.tests(&module, &mut hosts::within(&command)),
                Ok(Some(reason)) => self.skip(&module, &reason),
                Err(error) => self.fail(&module, &error),
            }
        }
    }

    /// Tests of a binary beside each other. **What fails runs once more, with nothing beside it:** neighbours take CPU time from
    /// browsers and codecs. It counts as passed if it passes then, and is listed.
    fn tests_side_by_side(&mut self, binary: &str, filters: &[impl AsRef<str>]) {
        let known = self.failures.len();
        self.tests(binary, side_by_side(&mut tests_of(binary, filters)));
        let failed = self.failures.split_off(known);
        if failed.len() > MOST_ALONE_AGAIN {
            return self.failures.extend(failed);
        }
        let mut still = Vec::new();
        for test in failed {
            let (passed, failed) = (self.passed, self.failed);
            self.tests(&format!("{test}, by itself"), tests_of(binary, &[&test]).arg("--exact"));
            self.failures.truncate(known);
            if self.passed > passed && self.failed == failed {
                self.failed -= 1;
                self.unsociable.push(test);
            } else {
                self.failed = failed;
                still.push(test);
            }
        }
        self.failures.append(&mut still);
    }

    /// A `cargo test`, whose own results count.
    fn tests(&mut self, name: &str, command: &mut Command) {
        let started = headline(name);
        match self.count(command) {
            Ok((success, failed)) => {
                // A test binary that does not build or dies has no result line.
                if !success && failed == 0 {
                    self.fail(name, &"a test binary did not build or ended early");
                }
                println!("{name}: {:.0} s", started.elapsed().as_secs_f32());
            }
            Err(error) => self.fail(name, &error),
        }
    }

    /// Whether cargo was content, and how many tests failed.
    fn count(&mut self, command: &mut Command) -> Result<(bool, u32)> {
        let mut child = command.stdout(Stdio::piped()).spawn().context("cannot run cargo")?;
        let stdout = child.stdout.take().context("cargo has no stdout")?;
        let failed_before = self.failed;
        for line in BufReader::new(stdout).split(b'\n') {
            let line = String::from_utf8_lossy(&line?).into_owned();
            println!("{line}");
            if let Some((passed, failed)) = parse_result(&line) {
                self.passed += passed;
                self.failed += failed;
            }
            if let Some(test) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED")) {
                self.failures.push(test.to_owned());
            }
        }
        Ok((child.wait()?.success(), self.failed - failed_before))
    }

    fn skip(&mut self, name: &str, reason: &str) {
        eprintln!("{name}: SKIPPED ({reason})");
        self.skipped.push(format!("{name} ({reason})"));
    }

    fn fail(&mut self, name: &str, reason: &impl std::fmt::Display) {
        eprintln!("{name}: FAILED ({reason})");
        self.failed += 1;
        self.failures.push(name.to_owned());
    }

    fn close(self) -> Result<()> {
        for skipped in &self.skipped {
            println!("SKIPPED: {skipped}");
        }
        for test in &self.unsociable {
            println!("failed beside others, passed by itself: {test}");
        }
        for failure in &self.failures {
            println!("failed: {failure}");
        }
        println!("{} passed, {} failed", self.passed, self.failed);
        std::io::stdout().flush()?;
        if self.failed > 0 {
            bail!("not everything passed");
        }
        Ok(())
    }
}

fn headline(name: &str) -> Instant {
    println!("\n== {name}");
    Instant::now()
}

/// `test result: ok. 3 passed; 0 failed; …`
fn parse_result(line: &str) -> Option<(u32, u32)> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let number = |name: &str| {
        let part = counts.split("; ").find_map(|part| part.trim().strip_suffix(name))?;
        part.trim().parse().ok()
    };
    Some((number("passed")?, number("failed")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_system_tests_is_run() {
        let files = fs::read_dir(repo::root().join(SYSTEM_TESTS)).unwrap().map(|entry| entry.unwrap().path());
        let stems = files.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned());
        let mut files: Vec<String> = stems.filter(|stem| stem != "main").collect();
        files.sort();
        let mut modules = modules().unwrap();
        modules.sort();
        assert_eq!(modules, files);
        assert!(modules.len() > 20);
        assert!(ALONE.iter().all(|alone| modules.iter().any(|module| module == alone)));
    }

    #[test]
    fn results_are_read_as_cargo_prints_them() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 0 filtered out; finished in 2.07s";
        assert_eq!(parse_result(line), Some((12, 3)));
        assert_eq!(parse_result("test tests::it_works ... ok"), None);
    }
}
