//! What a machine is told at its first boot, and the unit it runs: checked by the programs that read them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{Outcome, run_if_present, said, state, succeed, terraform};
use crate::{repo, setup};

/// Highest exposure of the unit that `systemd-analyze security` may find, tenths: 0 is closed, 100 open.
const MAX_EXPOSURE: &str = "25";
const UNIT: &str = "sfu-node.service";
/// What the unit and every service hang on: systemd looks for them, whatever is in them.
const TARGETS: [&str; 6] = ["basic", "multi-user", "network-online", "shutdown", "sysinit", "time-sync"];

/// cloud-init takes the user data.
pub(super) fn user_data() -> Result<Outcome> {
    let Some((user_data, _)) = terraform::rendered()? else {
        return Ok(Outcome::Skipped("user data is rendered by terraform, which is not installed".to_owned()));
    };
    let file = state().join("user-data.yaml");
    fs::write(&file, user_data)?;
    run_if_present(Command::new("cloud-init").args(["schema", "--config-file"]).arg(file))
}

/// systemd takes the unit with what the fleet sets over it, and has next to nothing to hold against it.
pub(super) fn unit() -> Result<Outcome> {
    if !setup::on_path("systemd-analyze") {
        return Ok(Outcome::Skipped("systemd-analyze is not installed".to_owned()));
    }
    let root = state().join("root");
    let _ = fs::remove_dir_all(&root);
    let write = |path: &str, text: &str| {
        let file = root.join(path);
        fs::create_dir_all(file.parent().context("a file has a directory")?)?;
        fs::write(&file, text).with_context(|| format!("writing {}", file.display()))
    };
    let unit = fs::read_to_string(repo::root().join("sfu-node/package").join(UNIT))?;
    write(&format!("usr/lib/systemd/system/{UNIT}"), &unit)?;
    if let Some((_, drop_in)) = terraform::rendered()? {
        write(&format!("etc/systemd/system/{UNIT}.d/10-fleet.conf"), &drop_in)?;
    }
    for target in TARGETS {
        write(&format!("usr/lib/systemd/system/{target}.target"), "[Unit]\nDescription=A target\n")?;
    }
    // It looks whether the program is there, not into it.
    write("usr/bin/sfu-node", "#!/bin/sh\n")?;
    fs::set_permissions(root.join("usr/bin/sfu-node"), fs::Permissions::from_mode(0o755))?;
    let analyze = |arguments: &[&str]| {
        let mut command = Command::new("systemd-analyze");
        command.args(arguments).arg(format!("--root={}", root.display())).arg(UNIT).env("SYSTEMD_COLORS", "0");
        command
    };
    let verified = succeed(&mut analyze(&["verify", "--man=no"]))?;
    // A key that it does not know is only a warning to systemd.
    if !verified.stderr.is_empty() {
        bail!("systemd-analyze verify: {}", said(&verified));
    }
    let rated = succeed(&mut analyze(&["security", "--offline=yes", &format!("--threshold={MAX_EXPOSURE}")]))?;
    println!("  {}", said(&rated).lines().last().unwrap_or_default());
    Ok(Outcome::Passed)
}
