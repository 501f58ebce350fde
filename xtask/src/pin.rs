//! `cargo xtask pin`: packages and where they will lie, as Terraform pins them.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{package, repo};

/// Architectures as Debian calls them; a fleet needs those of its machines.
const ARCHITECTURES: [&str; 2] = ["amd64", "arm64"];
/// The file that this writes.
const FILE: &str = "release.tfvars";

/// Write release.tfvars for these packages: their version, address and SHA-256, for `terraform apply -var-file`.
#[derive(Args)]
pub struct Pin {
    /// Where machines will fetch them from, without the file's name: `https://…`. `{version}` stands for the version.
    #[arg(long)]
    pub(crate) url: String,
    /// Where they are, as `cargo xtask package` leaves them.
    #[arg(default_value_os_t = package::directory())]
    pub(crate) directory: PathBuf,
}

impl Pin {
    /// Writes it.
    ///
    /// # Errors
    /// When there is no package of this version.
    pub fn run(&self) -> Result<()> {
        let file = self.directory.join(FILE);
        fs::write(&file, self.release(&repo::version()?)?).with_context(|| format!("writing {}", file.display()))?;
        println!("{}", file.display());
        Ok(())
    }

    /// What the file says.
    ///
    /// # Errors
    /// When there is no package of this version.
    pub(crate) fn release(&self, version: &str) -> Result<String> {
        let mut sums = Vec::new();
        for arch in ARCHITECTURES {
            let package = self.directory.join(format!("sfu-node_{version}-1_{arch}.deb"));
            if package.is_file() {
                sums.push(format!("    {arch} = \"{}\"\n", package::sha256(&package)?));
            }
        }
        if sums.is_empty() {
            bail!("{} has no package of version {version}: `cargo xtask package`", self.directory.display());
        }
        let url = format!("{}/sfu-node_{{version}}-1_{{arch}}.deb", self.url.trim_end_matches('/'));
        let sums = sums.concat();
        Ok(format!("release = {{\n  version = \"{version}\"\n  url     = \"{url}\"\n  sha256 = {{\n{sums}  }}\n}}\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_pinned_by_what_is_in_them() {
        let directory = std::env::temp_dir().join(format!("meridian-pin-test-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let pin = Pin { url: "https://example.com/v{version}/".to_owned(), directory: directory.clone() };
        fs::write(directory.join("sfu-node_1.4.1-1_amd64.deb"), "of another version").unwrap();
        let none = pin.release("1.4.0").unwrap_err().to_string();
        fs::write(directory.join("sfu-node_1.4.0-1_arm64.deb"), "abc").unwrap();
        let release = pin.release("1.4.0").unwrap();
        fs::remove_dir_all(&directory).unwrap();
        assert!(none.contains("no package of version 1.4.0"), "{none}");
        // FIPS 180-4's example.
        let expected = "release = {\n  version = \"1.4.0\"\n  \
            url     = \"https://example.com/v{version}/sfu-node_{version}-1_{arch}.deb\"\n  sha256 = {\n    \
            arm64 = \"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"\n  }\n}\n";
        assert_eq!(release, expected);
    }
}
