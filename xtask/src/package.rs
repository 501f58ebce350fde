//! `cargo xtask package`: the node as a Debian package, with the checksum that Terraform pins.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use aws_lc_rs::digest::{SHA256, digest};

use crate::setup::cargo_deb;
use crate::{repo, setup};

/// Builds the node as it is released, packs it into `target/package`, and says how to pin it.
///
/// # Errors
/// When it does not build, or cannot be packed.
pub fn run() -> Result<()> {
    setup::for_packages()?;
    let directory = repo::target_dir().join("package");
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory)?;
    let mut deb = Command::new(cargo_deb::binary());
    deb.current_dir(repo::root()).args(["--package", "sfu-node", "--locked", "--output"]).arg(&directory);
    let status = deb.status().context("cannot run cargo-deb")?;
    if !status.success() {
        bail!("cargo-deb: {status}");
    }
    let packages = fs::read_dir(&directory)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<PathBuf>>>()?;
    for package in packages.iter().filter(|path| path.extension().is_some_and(|extension| extension == "deb")) {
        let name = package.file_name().context("a file has a name")?.to_string_lossy();
        let line = format!("{}  {name}\n", sha256(package)?);
        fs::write(directory.join(format!("{name}.sha256")), &line)?;
        println!("{}\n{line}", package.display());
    }
    Ok(())
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
    fn the_checksum_is_as_sha256sum_prints_it() {
        let file = std::env::temp_dir().join(format!("meridian-package-test-{}", std::process::id()));
        fs::write(&file, "abc").unwrap();
        // FIPS 180-4's example.
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(&file).unwrap(), expected);
        fs::remove_file(file).unwrap();
    }
}
