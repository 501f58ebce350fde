//! Headless Chromium with a fake camera and microphone.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio::process::Command;
use xtask::setup::chromium;
use xtask::{page, repo};

use crate::driver::Driver;
use crate::sdk::{PATIENCE, SdkClient};

/// One browser; each page has a context (storage, permissions) of its own.
pub struct Browser {
    driver: Arc<Driver>,
}

impl Browser {
    /// Starts it.
    ///
    /// # Errors
    /// When setup has not run.
    pub async fn launch() -> Result<Self> {
        let chromium = chromium::binary().context("no Chromium: run `cargo xtask setup`")?;
        let test_page = tokio::task::spawn_blocking(page::build_test_page).await??;
        let mut command = Command::new("node");
        command.arg(repo::root().join("tests/browser/driver.mjs")).arg(chromium).arg(test_page);
        Ok(Self { driver: Arc::new(Driver::start(command).await.context("the browser")?) })
    }

    /// The test client, in a page called after its identity.
    ///
    /// # Errors
    /// When the page does not load.
    pub async fn client(&self, identity: &str) -> Result<SdkClient> {
        self.driver.ask::<Value>(json!({ "method": "open", "page": identity })).await?;
        Ok(SdkClient::in_page(Arc::clone(&self.driver), identity))
    }

    /// Kills it with all its pages: nobody hears a word of them.
    ///
    /// # Errors
    /// It ended before.
    pub async fn kill(self) -> Result<()> {
        self.driver.ask::<Value>(json!({ "method": "kill" })).await.map(drop)
    }

    /// Any page, `width` by `height` pixels.
    ///
    /// # Errors
    /// When it does not load.
    pub async fn open(&self, name: &str, url: &str, (width, height): (u32, u32)) -> Result<Page> {
        let request = json!({ "method": "open", "page": name, "url": url, "width": width, "height": height });
        self.driver.ask::<Value>(request).await?;
        Ok(Page { driver: Arc::clone(&self.driver), name: name.to_owned() })
    }
}

/// A page that is used as a person would.
pub struct Page {
    driver: Arc<Driver>,
    name: String,
}

impl Page {
    /// Types into an input.
    ///
    /// # Errors
    /// When there is none.
    pub async fn fill(&self, selector: &str, text: &str) -> Result<()> {
        self.ask(json!({ "method": "fill", "selector": selector, "text": text })).await
    }

    /// Clicks.
    ///
    /// # Errors
    /// When there is nothing to click.
    pub async fn click(&self, selector: &str) -> Result<()> {
        self.ask(json!({ "method": "click", "selector": selector })).await
    }

    /// Waits until a JavaScript expression is true.
    ///
    /// # Errors
    /// When it is not in [`PATIENCE`].
    pub async fn until(&self, expression: &str) -> Result<()> {
        let limit = u64::try_from(PATIENCE.as_millis())?;
        self.ask(json!({ "method": "until", "expression": expression, "timeoutMs": limit })).await
    }

    /// Saves what it looks like, as PNG.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn screenshot(&self, path: &Path) -> Result<()> {
        self.ask(json!({ "method": "screenshot", "path": path })).await
    }

    async fn ask(&self, mut request: Value) -> Result<()> {
        let what = request.to_string();
        request.as_object_mut().context("a request is an object")?.insert("page".to_owned(), json!(self.name));
        self.driver.ask::<Value>(request).await.map(drop).with_context(|| format!("{}: {what}", self.name))
    }
}
