//! `cargo xtask fuzz`: builds the fuzz targets once, then runs each for a while. Ends with an error if one crashed.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::setup::cargo_fuzz;
use crate::{progress, repo, setup};

/// An input that takes longer is reported as a crash, seconds.
const INPUT_LIMIT_SECS: u32 = 60;
/// Memory of a target that is reported as a crash, MiB.
const MEMORY_LIMIT_MIB: u32 = 1024;
/// Longest input, bytes: a story of datagrams or of descriptions.
const MAX_INPUT_LEN: u32 = 64 * 1024;
/// Lines of a target that crashed that are shown.
const SHOWN_LINES: usize = 40;

/// Manifest of the targets, below the root of the working copy.
pub(crate) const MANIFEST: &str = "fuzz/Cargo.toml";

/// Fuzz what reads network bytes; what is found is kept in fuzz/corpus.
#[derive(Args)]
pub struct Fuzz {
    /// How long each target runs.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Only this target; may be given several times.
    #[arg(long = "target")]
    targets: Vec<String>,
    /// Only build.
    #[arg(long)]
    build: bool,
}

/// What became of a target.
#[derive(Debug, Default)]
struct Outcome {
    executions: u64,
    /// Edges seen.
    coverage: u64,
    /// The input that broke it.
    reproducer: Option<String>,
    last: VecDeque<String>,
}

impl Fuzz {
    /// Builds and runs.
    ///
    /// # Errors
    /// When setup or the build fails, there is no such target, or a target crashed.
    pub fn run(&self) -> Result<()> {
        let known = targets()?;
        for wanted in &self.targets {
            ensure!(known.contains(wanted), "no target {wanted}; there are {}", known.join(", "));
        }
        let chosen = if self.targets.is_empty() { known } else { self.targets.clone() };
        setup::for_fuzz()?;
        let mut build = Command::new(cargo_fuzz::binary());
        build.args(["build", "--sanitizer", "none", "--fuzz-dir"]).arg(directory());
        build.arg("--target-dir").arg(directory().join("target"));
        progress::run("building the fuzz targets", build.current_dir(directory()))?;
        if self.build {
            return Ok(());
        }
        let mut crashed = 0;
        for target in &chosen {
            let outcome = self.run_target(target)?;
            println!("{}", outcome.line(target));
            if outcome.reproducer.is_some() {
                crashed += 1;
                outcome.last.iter().for_each(|line| println!("    {line}"));
            }
        }
        ensure!(crashed == 0, "{crashed} of {} targets crashed", chosen.len());
        Ok(())
    }

    fn run_target(&self, target: &str) -> Result<Outcome> {
        let (corpus, seeds) = (directory().join("corpus").join(target), directory().join("seeds").join(target));
        let artifacts = directory().join("artifacts").join(target);
        for made in [&corpus, &artifacts] {
            fs::create_dir_all(made).with_context(|| format!("creating {}", made.display()))?;
        }
        ensure!(seeds.is_dir(), "{target} has no seeds");
        let binary = binary(target)?;
        let mut command = Command::new(&binary);
        // New inputs go to the first directory.
        command.arg(&corpus).arg(&seeds);
        command.arg(format!("-artifact_prefix={}/", artifacts.display()));
        command.arg(format!("-max_total_time={}", self.seconds)).arg(format!("-timeout={INPUT_LIMIT_SECS}"));
        command.arg(format!("-rss_limit_mb={MEMORY_LIMIT_MIB}")).arg(format!("-max_len={MAX_INPUT_LEN}"));
        command.arg("-print_final_stats=1");
        let mut child = command
            .current_dir(directory())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", binary.display()))?;
        let stderr = child.stderr.take().context("no stderr")?;
        let mut outcome = Outcome::default();
        for line in BufReader::new(stderr).split(b'\n') {
            outcome.hear(String::from_utf8_lossy(&line?).into_owned());
        }
        let status = child.wait()?;
        if !status.success() && outcome.reproducer.is_none() {
            outcome.reproducer = Some(format!("none written ({status})"));
        }
        Ok(outcome)
    }
}

impl Outcome {
    /// Takes a line of libFuzzer's: `#2097152 pulse  cov: 310 ft: 1177 …`, `Test unit written to …`, `stat::…: N`.
    fn hear(&mut self, line: String) {
        if let Some((_, rest)) = line.split_once(" cov: ").filter(|_| line.starts_with('#')) {
            let number = rest.split_whitespace().next().and_then(|word| word.parse().ok());
            self.coverage = self.coverage.max(number.unwrap_or(0));
        }
        if let Some(count) = line.strip_prefix("stat::number_of_executed_units:") {
            self.executions = count.trim().parse().unwrap_or(0);
        }
        if let Some((_, path)) = line.split_once("Test unit written to ") {
            self.reproducer = Some(path.trim().to_owned());
        }
        if self.last.len() == SHOWN_LINES {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }

    fn line(&self, target: &str) -> String {
        let verdict = self.reproducer.as_ref().map_or_else(|| "ok".to_owned(), |path| format!("CRASH {path}"));
        format!("{target:<16} {:>12} executions {:>6} edges  {verdict}", self.executions, self.coverage)
    }
}

fn directory() -> PathBuf {
    repo::root().join("fuzz")
}

/// Names of the targets, as fuzz/Cargo.toml lists them.
fn targets() -> Result<Vec<String>> {
    let text = fs::read_to_string(repo::root().join(MANIFEST)).with_context(|| format!("reading {MANIFEST}"))?;
    let manifest: toml::Table = text.parse().context(MANIFEST)?;
    let binaries =
        manifest.get("bin").and_then(toml::Value::as_array).with_context(|| format!("{MANIFEST} has no targets"))?;
    let names = binaries.iter().filter_map(|bin| bin.get("name")?.as_str().map(str::to_owned));
    Ok(names.collect())
}

/// Where cargo-fuzz builds a target: under the host's triple.
fn binary(target: &str) -> Result<PathBuf> {
    let built = directory().join("target");
    let triples = fs::read_dir(&built).with_context(|| format!("reading {}", built.display()))?;
    let under = |triple: &Path| triple.join("release").join(target);
    let found = triples.filter_map(Result::ok).map(|entry| under(&entry.path())).find(|path| path.is_file());
    match found {
        Some(path) => Ok(path),
        None => bail!("{target} was not built"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_read_as_libfuzzer_prints_it() {
        let mut outcome = Outcome::default();
        for line in [
            "INFO: seed corpus: files: 7 min: 12b max: 88b total: 301b rss: 40Mb",
            "#8\tINITED cov: 61 ft: 62 corp: 7/301b exec/s: 0 rss: 41Mb",
            "#512\tNEW    cov: 74 ft: 80 corp: 9/340b lim: 88 exec/s: 0 rss: 41Mb L: 39/88 MS: 1 EraseBytes-",
            "stat::number_of_executed_units: 1234567",
        ] {
            outcome.hear(line.to_owned());
        }
        assert_eq!((outcome.executions, outcome.coverage), (1_234_567, 74));
        assert!(outcome.line("rtp").ends_with("ok"), "{}", outcome.line("rtp"));
        outcome.hear("artifact_prefix='x/'; Test unit written to x/crash-ab12".to_owned());
        assert!(outcome.line("rtp").ends_with("CRASH x/crash-ab12"), "{}", outcome.line("rtp"));
    }

    #[test]
    fn every_target_has_a_source_and_seeds() {
        let targets = targets().unwrap();
        assert!(targets.len() > 1);
        for target in targets {
            assert!(directory().join("targets").join(format!("{target}.rs")).is_file(), "{target}");
            assert!(fs::read_dir(directory().join("seeds").join(&target)).unwrap().next().is_some(), "{target}");
        }
    }
}
