//! `cargo xtask package`: the node as a Debian package, with the checksum that Terraform pins, and as a bare binary;
//! `cargo xtask image`: as an image.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use aws_lc_rs::digest::{SHA256, digest};
use clap::Args;

use crate::setup::cargo_deb;
use crate::{repo, setup};

/// What the image is made of.
const CONTAINERFILE: &str = "sfu-node/package/Containerfile";

/// Where packages are put.
#[must_use]
pub fn directory() -> PathBuf {
    repo::target_dir().join("package")
}

/// Build the Debian package of the node, and its binary alone, each with its checksum.
#[derive(Args)]
pub struct Package {
    /// The version it must be: a release's tag.
    #[arg(long)]
    version: Option<String>,
}

impl Package {
    /// Builds the node as it is released, packs it into [`directory`], and says how to pin it.
    ///
    /// # Errors
    /// When it is of another version, does not build, or cannot be packed.
    pub fn run(&self) -> Result<()> {
        let version = repo::version()?;
        if let Some(wanted) = self.version.as_ref().filter(|wanted| **wanted != version) {
            bail!("this is version {version}, not {wanted}: Cargo.toml and the tag must say the same");
        }
        setup::for_packages()?;
        let directory = directory();
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory)?;
        let mut deb = Command::new(cargo_deb::binary());
        deb.current_dir(repo::root())
            .args(["--package", "sfu-node", "--locked", "--strip", "--output"])
            .arg(&directory);
        let status = deb.status().context("cannot run cargo-deb")?;
        if !status.success() {
            bail!("cargo-deb: {status}");
        }
        let packages = fs::read_dir(&directory)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<PathBuf>>>()?;
        for package in packages.iter().filter(|path| path.extension().is_some_and(|extension| extension == "deb")) {
            for file in [package.clone(), bare(package)?] {
                let name = file.file_name().context("a file has a name")?.to_string_lossy();
                let line = format!("{}  {name}\n", sha256(&file)?);
                fs::write(directory.join(format!("{name}.sha256")), &line)?;
                println!("{} ({:.1} MB)\n{line}", file.display(), fs::metadata(&file)?.len() as f64 / 1e6);
            }
        }
        println!("next: put them where machines can fetch them, and `cargo xtask pin --url https://…`");
        Ok(())
    }
}

/// The binary of a package, stripped as it is there: a `.tar.gz` beside it, for systems without Debian packages.
fn bare(package: &Path) -> Result<PathBuf> {
    let archive = package.with_extension("tar.gz");
    let scratch = package.with_extension("unpacked");
    let unpack = Command::new("dpkg-deb").arg("--extract").arg(package).arg(&scratch).status();
    let pack = |file: &Path| {
        Command::new("tar")
            .arg("--create")
            .arg("--gzip")
            .arg("--file")
            .arg(file)
            .arg("--directory")
            .arg(&scratch)
            .args(["--transform", "s,.*/,,", "usr/bin/sfu-node"])
            .status()
    };
    let done = unpack.context("cannot run dpkg-deb")?.success() && pack(&archive).context("cannot run tar")?.success();
    fs::remove_dir_all(&scratch)?;
    if !done {
        bail!("{} cannot be unpacked and packed again", package.display());
    }
    Ok(archive)
}

/// Build the node's image with Podman or Docker.
#[derive(Args)]
pub struct Image {
    /// Its name, such as `ghcr.io/me/sfu-node:1.2.3`.
    #[arg(long, default_value = "sfu-node")]
    tag: String,
    /// Pushes it to the registry in its name; whoever runs this has logged in there.
    #[arg(long)]
    push: bool,
}

impl Image {
    /// Does it.
    ///
    /// # Errors
    /// When neither program is there, or it fails.
    pub fn run(&self) -> Result<()> {
        let program = ["podman", "docker"].into_iter().find(|program| setup::on_path(program));
        let program = program.context("neither podman nor docker is installed")?;
        for arguments in self.steps() {
            let status = Command::new(program).current_dir(repo::root()).args(&arguments).status();
            let status = status.with_context(|| format!("cannot run {program}"))?;
            if !status.success() {
                bail!("{program} {}: {status}", arguments.join(" "));
            }
        }
        Ok(())
    }

    fn steps(&self) -> Vec<Vec<&str>> {
        let mut steps = vec![vec!["build", "--tag", &self.tag, "--file", CONTAINERFILE, "."]];
        if self.push {
            steps.push(vec!["push", &self.tag]);
        }
        steps
    }
}

/// Packs the node as it was last built for development, unstripped and hardly compressed: for tests.
///
/// # Errors
/// When it is not built, or cannot be packed.
pub fn pack_dev(directory: &Path) -> Result<PathBuf> {
    setup::for_packages()?;
    fs::create_dir_all(directory)?;
    let package = directory.join("sfu-node.deb");
    let mut deb = Command::new(cargo_deb::binary());
    deb.current_dir(repo::root()).args(["--package", "sfu-node", "--no-build", "--profile", "dev"]);
    deb.args(["--no-strip", "--fast", "--output"]).arg(&package);
    let output = deb.output().context("cannot run cargo-deb")?;
    if !output.status.success() {
        bail!("cargo-deb: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(package)
}

/// A file's SHA-256, as Terraform and sha256sum write it.
///
/// # Errors
/// When it cannot be read.
pub fn sha256(file: &Path) -> Result<String> {
    let bytes = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    Ok(digest(&SHA256, &bytes).as_ref().iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_pushed_only_when_asked_for() {
        let image = |push| Image { tag: "ghcr.io/me/sfu-node:1.2.3".to_owned(), push };
        assert!(repo::root().join(CONTAINERFILE).is_file());
        let build = vec!["build", "--tag", "ghcr.io/me/sfu-node:1.2.3", "--file", CONTAINERFILE, "."];
        assert_eq!(image(false).steps(), std::slice::from_ref(&build));
        assert_eq!(image(true).steps(), [build, vec!["push", "ghcr.io/me/sfu-node:1.2.3"]]);
    }

    #[test]
    fn the_checksum_is_as_sha256sum_prints_it() {
        let file = std::env::temp_dir().join(format!("meridian-package-test-{}", std::process::id()));
        fs::write(&file, "abc").unwrap();
        // FIPS 180-4's example.
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(&file).unwrap(), expected);
        fs::remove_file(file).unwrap();
    }
}
