//! Building the Worker: std with unwinding panics, wasm-bindgen, the entry shim, esbuild.
//!
//! worker-build is not used: for unwinding panics it insists on a rustup nightly. What it does is these four steps.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result, bail};

use crate::setup::wasm_bindgen;
use crate::setup::wasm_target::{self, TARGET, WasmStd};
use crate::{progress, repo};

const SHIM: &str = include_str!("wasm/shim.js");
/// The JavaScript that loads the module.
pub const SCRIPT: &str = "index.js";
/// The module.
pub const MODULE: &str = "index_bg.wasm";
/// Debian's compiler for the web and what goes with it.
const DEBIAN_BIN: &str = "/usr/bin";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const DEBIAN_LINKER: &str = "wasm-ld-22";
/// What workerd runs; newer encodings that binaryen knows are not to be emitted.
const WASM_FEATURES: [&str; 7] = [
    "--enable-mutable-globals",
    "--enable-sign-ext",
    "--enable-nontrapping-float-to-int",
    "--enable-bulk-memory",
    "--enable-multivalue",
    "--enable-reference-types",
    "--enable-exception-handling",
];

/// How the Worker is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Quick to build.
    Dev,
    /// Small and fast: what is deployed and measured.
    Release,
}

impl Profile {
    fn cargo(self) -> &'static str {
        match self {
            Self::Dev => "edge-dev",
            Self::Release => "edge",
        }
    }

    /// Where its build lies.
    pub(crate) fn directory(self) -> PathBuf {
        self.directory_in(&repo::state_dir())
    }

    /// The same of another working copy's state.
    pub(crate) fn directory_in(self, state_dir: &Path) -> PathBuf {
        state_dir.join("worker").join(match self {
            Self::Dev => "dev",
            Self::Release => "release",
        })
    }
}

/// A built Worker: [`SCRIPT`] and [`MODULE`].
#[derive(Debug, Clone)]
pub struct Bundle {
    /// Where both lie.
    pub dir: PathBuf,
    /// The working copy it was built from, with its wrangler.toml and meeting page.
    pub source: PathBuf,
}

/// Builds the Worker, or finds it built.
///
/// # Errors
/// When setup has not run, or a step fails; what it said is printed.
pub fn build(profile: Profile) -> Result<Bundle> {
    let source = wasm_target::detect().context("no std for the Worker: run `cargo xtask setup`")?;
    let mut compile = cargo("build", source);
    compile.args(["--profile", profile.cargo()]);
    let started = std::time::Instant::now();
    let status = compile.status().context("cannot run cargo")?;
    if !status.success() {
        bail!("the Worker does not build");
    }
    let module = target_dir().join(TARGET).join(profile.cargo()).join("edge_signal.wasm");
    let bundle = Bundle { dir: profile.directory(), source: repo::root().to_owned() };
    let stamp = stamp(&module)?;
    let stamp_file = bundle.dir.join("stamp");
    if fs::read_to_string(&stamp_file).is_ok_and(|old| old == stamp) {
        return Ok(bundle);
    }
    eprintln!("  the Worker: {}, compiled in {:.1} s", source.describe(), started.elapsed().as_secs_f32());
    assemble(&module, &bundle.dir, profile)?;
    fs::write(stamp_file, stamp)?;
    Ok(bundle)
}

/// Cargo on the Worker's crate for wasm32, with a std whose panics unwind: `build`, `clippy`, …
///
/// An abort would reset every object in the isolate and leave the callers waiting.
#[must_use]
pub fn cargo(subcommand: &str, source: WasmStd) -> Command {
    let mut command = match source {
        WasmStd::RustSrc => repo::cargo(),
        WasmStd::Debian => {
            let mut command = Command::new(DEBIAN_CARGO);
            command.current_dir(repo::root()).env("RUSTC", DEBIAN_RUSTC);
            // Set by rustup's cargo around this process; they would lead back to its toolchain.
            command.env_remove("CARGO").env_remove("RUSTUP_TOOLCHAIN");
            command.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", DEBIAN_LINKER);
            // `cargo clippy` looks for its program on the PATH, where rustup's would come first.
            let path = std::env::var("PATH").unwrap_or_default();
            command.env("PATH", format!("{DEBIAN_BIN}:{path}"));
            command
        }
    };
    // -Zbuild-std is a nightly option of a stable compiler.
    command.env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", "-Cpanic=unwind");
    // wasm-bindgen's macros reach futures through js-sys, which is what worker has.
    command.env("WASM_BINDGEN_USE_JS_SYS", "1");
    command.arg(subcommand).args(["--package", "edge-signal", "--lib", "--target", TARGET]);
    command.args(["-Zbuild-std=std,panic_unwind", "-Zbuild-std-features=optimize_for_size"]);
    command.arg("--target-dir").arg(target_dir());
    command
}

/// Apart from the native one: another compiler may have built it.
fn target_dir() -> PathBuf {
    repo::target_dir().join("wasm")
}

/// Changes whenever the module or a tool does.
fn stamp(module: &Path) -> Result<String> {
    let metadata = fs::metadata(module).with_context(|| format!("no {}", module.display()))?;
    let modified = metadata.modified()?.duration_since(UNIX_EPOCH)?.as_nanos();
    let bindgen = repo::locked_version("wasm-bindgen")?;
    Ok(format!("{} {modified} {} {bindgen} {}", module.display(), metadata.len(), SHIM.len()))
}

fn assemble(module: &Path, dir: &Path, profile: Profile) -> Result<()> {
    let _ = fs::remove_dir_all(dir);
    fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    let mut bindgen = Command::new(wasm_bindgen::binary());
    bindgen.arg(module).arg("--out-dir").arg(dir).args([
        "--out-name",
        "index",
        "--target",
        "module",
        "--no-typescript",
    ]);
    bindgen.args(["--experimental-reset-state-function", "--force-enable-abort-handler"]);
    progress::run("binding the Worker to JavaScript", &mut bindgen)?;
    if profile == Profile::Release {
        let mut optimise = Command::new("node");
        optimise.arg(repo::npm_bin("binaryen/bin/wasm-opt")).arg("-Oz").args(WASM_FEATURES);
        let file = dir.join(MODULE);
        optimise.arg(&file).arg("-o").arg(&file);
        progress::run("optimising the Worker", &mut optimise)?;
    }
    let glue = dir.join(SCRIPT);
    let text = fs::read_to_string(&glue).context("wasm-bindgen wrote no script")?;
    fs::write(dir.join("shim.js"), shim(&text)?)?;
    let mut bundle = Command::new(repo::npm_bin("esbuild/bin/esbuild"));
    bundle.current_dir(dir).args(["./shim.js", "--bundle", "--format=esm", "--outfile=index.js", "--allow-overwrite"]);
    bundle.args(["--external:./index_bg.wasm", "--external:cloudflare:*", "--log-level=warning"]);
    progress::run("bundling the Worker", &mut bundle)?;
    // workerd takes a module import of a .wasm file for a compiled module; the newer `import source` it does not know.
    let text = fs::read_to_string(&glue)?;
    fs::write(&glue, text.replace("import source ", "import "))?;
    fs::remove_file(dir.join("shim.js"))?;
    Ok(())
}

/// The entry module: the fetch handler, and each object class behind a proxy.
fn shim(glue: &str) -> Result<String> {
    let names = glue.lines().filter_map(|line| line.strip_prefix("export class "));
    let classes: Vec<&str> = names.filter_map(|rest| rest.split([' ', '{']).next()).collect();
    if !classes.iter().any(|name| name.ends_with("Object")) || !glue.contains("fetch") {
        bail!("wasm-bindgen's script has no object class or no fetch: its form has changed");
    }
    let objects = classes.iter().filter(|name| name.ends_with("Object"));
    let exports: String = objects.map(|name| format!("export const {name} = renewed(exports.{name});\n")).collect();
    Ok(format!("{SHIM}{exports}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shim_exports_every_object() {
        let shim = shim("export class RoomObject {\n}\nexport class Other {\nexport function fetch(a) {\n").unwrap();
        assert!(shim.ends_with("export const RoomObject = renewed(exports.RoomObject);\n"), "{shim}");
        assert!(super::shim("export function fetch() {}").is_err());
    }
}
