//! `cargo xtask deploy`: builds the Worker as it is deployed, weighs it, and hands it to wrangler.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use crate::setup::node;
use crate::{page, repo, setup, wasm};

/// Largest Worker that is deployed, bytes of gzip. Cloudflare's limit is 3 MB on the free plan; a start takes longer
/// with every byte.
const MAX_GZIP: u64 = 1_200_000;

/// Build and deploy the edge.
#[derive(Args)]
pub struct Deploy {
    /// Which environment of wrangler.toml.
    #[arg(long, value_enum, default_value_t = Environment::Staging)]
    env: Environment,
    /// Shows what would go, and stops.
    #[arg(long)]
    dry_run: bool,
    /// Secrets to upload with it (`cargo xtask secrets`): needed the first time.
    #[arg(long)]
    secrets: Option<PathBuf>,
    /// More for `wrangler deploy`, such as `-- --domain meet.example.com`.
    #[arg(last = true)]
    wrangler: Vec<String>,
}

/// An environment of wrangler.toml.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Environment {
    /// For trying things.
    Staging,
    /// For users.
    Production,
}

impl Environment {
    /// All there are.
    pub(crate) const ALL: [Self; 2] = [Self::Staging, Self::Production];

    /// Its name in wrangler.toml.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Staging => "staging",
            Self::Production => "production",
        }
    }
}

impl Deploy {
    /// Builds, weighs, deploys.
    ///
    /// # Errors
    /// When a step fails, or the Worker is too large.
    pub fn run(&self) -> Result<()> {
        setup::for_wrangler()?;
        page::build()?;
        let (output, size) = weigh(self.env)?;
        print!("{output}");
        println!("gzip: {size} bytes of at most {MAX_GZIP}");
        if self.dry_run {
            return Ok(());
        }
        let mut command = wrangler(self.env);
        if let Some(secrets) = &self.secrets {
            command.arg("--secrets-file").arg(std::path::absolute(secrets)?);
        }
        let status = command.args(&self.wrangler).status().context("cannot run wrangler")?;
        if !status.success() {
            bail!("wrangler deploy: {status}");
        }
        println!("next: curl https://YOUR-WORKER/healthz says OK, or which secret is missing");
        Ok(())
    }
}

/// Builds the Worker as it is deployed; what wrangler would deploy, in its words, and how large it is, bytes of gzip.
///
/// # Errors
/// It does not build, or is too large.
pub(crate) fn weigh(environment: Environment) -> Result<(String, u64)> {
    wasm::build(wasm::Profile::Release)?;
    let output = dry_run(environment, None)?;
    let size = gzip_size(&output).context("wrangler did not say how large the Worker is")?;
    if size > MAX_GZIP {
        bail!("the Worker is {size} bytes of gzip, more than {MAX_GZIP}:\n{output}");
    }
    Ok((output, size))
}

/// What wrangler would deploy, in its words; with another script than the release build's for checks of the file alone.
pub(crate) fn dry_run(environment: Environment, script: Option<PathBuf>) -> Result<String> {
    let mut command = wrangler(environment);
    // The script stands behind the subcommand.
    command.args(script).arg("--dry-run").arg("--outdir").arg(repo::state_dir().join("deploy"));
    let output = command.stdin(Stdio::null()).output().context("cannot run wrangler")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("wrangler deploy --dry-run: {}\n{text}{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(text)
}

fn wrangler(environment: Environment) -> Command {
    let mut command = Command::new(node::for_wrangler());
    command.current_dir(repo::root()).arg(repo::npm_bin("wrangler/bin/wrangler.js"));
    command.args(["deploy", "--env", environment.name()]);
    command.env("WRANGLER_SEND_METRICS", "false").env("WRANGLER_SEND_ERROR_REPORTS", "false").env("NO_COLOR", "1");
    command
}

/// `Total Upload: 2558.64 KiB / gzip: 932.48 KiB`, in bytes.
fn gzip_size(output: &str) -> Option<u64> {
    let (_, rest) = output.lines().find(|line| line.starts_with("Total Upload:"))?.split_once("gzip: ")?;
    let (whole, fraction) = rest.strip_suffix(" KiB")?.split_once('.')?;
    let hundredths: u64 = format!("{whole}{fraction:0<2}").parse().ok()?;
    Some((hundredths * 1024).div_ceil(100))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_is_read_as_wrangler_prints_it() {
        let output = "Read 6 files\nTotal Upload: 2558.64 KiB / gzip: 932.48 KiB\nYour Worker has access to\n";
        assert_eq!(gzip_size(output), Some(954_860));
        assert_eq!(gzip_size("Total Upload: lots"), None);
    }

    #[test]
    fn the_datasets_only_need_to_be_taken_in() {
        let text = std::fs::read_to_string(repo::root().join("wrangler.toml")).unwrap();
        let of = |text: &str, environment: &str| {
            let file: toml::Table = text.parse().unwrap();
            file["env"][environment].get("analytics_engine_datasets").cloned()
        };
        let taken_in =
            text.replace("# [[", "[[").replace("# binding =", "binding =").replace("# dataset =", "dataset =");
        for environment in Environment::ALL.map(Environment::name) {
            assert_eq!(of(&text, environment), None, "an account without Analytics Engine takes no such Worker");
            let datasets = of(&taken_in, environment).unwrap();
            assert_eq!(datasets[0]["binding"].as_str(), Some("ANALYTICS"));
            assert_eq!(datasets[0]["dataset"].as_str(), Some(format!("meridian_{environment}").as_str()));
        }
    }
}
