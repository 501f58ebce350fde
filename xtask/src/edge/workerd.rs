//! wrangler.toml as a configuration of bare workerd.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::EdgeConfig;
use crate::{repo, wasm};

/// Header in which a client says what the platform would know of it (`cf`), in JSON: where it is, for one.
pub const CF_HEADER: &str = "CF-Blob";
/// Workers Assets, in little: workerd alone serves a directory without content types or index.html.
const ASSETS: &str = include_str!("assets.js");

/// A dataset of Workers Analytics Engine, in little: its data points are lines of the log.
const ANALYTICS: &str = include_str!("analytics.js");

/// The parts of wrangler.toml that matter here.
#[derive(Deserialize)]
struct Wrangler {
    compatibility_date: String,
    #[serde(default)]
    compatibility_flags: Vec<String>,
    durable_objects: DurableObjects,
    assets: Assets,
}

#[derive(Deserialize)]
struct DurableObjects {
    bindings: Vec<ObjectBinding>,
}

#[derive(Deserialize)]
struct ObjectBinding {
    name: String,
    class_name: String,
}

#[derive(Deserialize)]
struct Assets {
    directory: String,
    binding: String,
}

/// Writes the configuration beside a copy of the bundle, so that a rebuild does not reach a running edge.
pub(super) fn command(config: &EdgeConfig) -> Result<Command> {
    let path = config.bundle.source.join("wrangler.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let wrangler: Wrangler = toml::from_str(&text).context("wrangler.toml")?;
    let dir = fs::canonicalize(&config.state_dir)?;
    for file in [wasm::SCRIPT, wasm::MODULE] {
        fs::copy(config.bundle.dir.join(file), dir.join(file)).with_context(|| format!("copying {file}"))?;
    }
    fs::write(dir.join("assets.js"), ASSETS)?;
    fs::write(dir.join("analytics.js"), ANALYTICS)?;
    let objects = dir.join("objects");
    fs::create_dir_all(&objects)?;
    let capnp = dir.join("workerd.capnp");
    fs::write(&capnp, configuration(&wrangler, config, &objects)?)?;
    let mut command = Command::new(binary()?);
    command.arg("serve").arg(capnp).envs(&config.vars);
    Ok(command)
}

/// The program itself: npm's `bin/workerd` would put a Node.js process between.
fn binary() -> Result<std::path::PathBuf> {
    let os = if cfg!(target_os = "macos") { "darwin" } else { "linux" };
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "64" };
    let path = repo::npm_bin(&format!("@cloudflare/workerd-{os}-{arch}/bin/workerd"));
    if !path.is_file() {
        bail!("no {}: run `cargo xtask setup`", path.display());
    }
    Ok(path)
}

fn configuration(wrangler: &Wrangler, config: &EdgeConfig, objects: &Path) -> Result<String> {
    let assets = config.bundle.source.join(&wrangler.assets.directory);
    let flags: Vec<String> = wrangler.compatibility_flags.iter().map(|flag| quoted(flag)).collect::<Result<_>>()?;
    let mut bindings = vec![format!("(name = {}, service = \"assets\")", quoted(&wrangler.assets.binding)?)];
    let mut namespaces = Vec::new();
    for object in &wrangler.durable_objects.bindings {
        let (name, class) = (quoted(&object.name)?, quoted(&object.class_name)?);
        bindings.push(format!("(name = {name}, durableObjectNamespace = {class})"));
        namespaces.push(format!("(className = {class}, uniqueKey = {class}, enableSql = true)"));
    }
    // wrangler.toml has it in comments: an account must have it enabled. What it would get is to be seen here.
    bindings.push("(name = \"ANALYTICS\", wrapped = (moduleName = \"meridian:analytics\"))".to_owned());
    for name in config.vars.keys() {
        // Values stay out of the file.
        bindings.push(format!("(name = {0}, fromEnvironment = {0})", quoted(name)?));
    }
    Ok(format!(
        r#"using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [
    (name = "main", worker = (
      modules = [
        (name = "{script}", esModule = embed "{script}"),
        (name = "{module}", wasm = embed "{module}"),
      ],
      compatibilityDate = {date}, compatibilityFlags = [{flags}],
      bindings = [{bindings}],
      durableObjectNamespaces = [{namespaces}],
      durableObjectStorage = (localDisk = "objects"),
    )),
    (name = "assets", worker = (
      modules = [(name = "assets.js", esModule = embed "assets.js")],
      compatibilityDate = {date}, bindings = [(name = "FILES", service = "files")],
    )),
    (name = "internet", network = (allow = ["public", "private"], tlsOptions = (trustBrowserCas = true))),
    (name = "files", disk = (path = {assets})),
    (name = "objects", disk = (path = {objects}, writable = true)),
  ],
  extensions = [(modules = [(name = "meridian:analytics", esModule = embed "analytics.js", internal = true)])],
  sockets = [(name = "http", address = "{address}", http = (cfBlobHeader = "{CF_HEADER}"), service = "main")],
);
"#,
        script = wasm::SCRIPT,
        module = wasm::MODULE,
        date = quoted(&wrangler.compatibility_date)?,
        flags = flags.join(", "),
        bindings = bindings.join(", "),
        namespaces = namespaces.join(", "),
        assets = quoted(&assets.to_string_lossy())?,
        objects = quoted(&objects.to_string_lossy())?,
        address = SocketAddr::new(config.address, config.port),
    ))
}

/// A capnp string. JSON's escapes are among its own.
fn quoted(text: &str) -> Result<String> {
    Ok(serde_json::to_string(text)?)
}
