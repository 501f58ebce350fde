//! `cargo xtask dev`, as a newcomer runs it: it prints a link, the link is a call, and a signal ends all of it.

use std::net::{TcpListener, UdpSocket};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use meridian_tests::browser::{Browser, Page};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;
use xtask::repo;

/// Longest that an unchanged build, wrangler and two nodes take to be ready.
const READY_LIMIT: Duration = Duration::from_secs(120);
/// Longest that everything takes to end.
const STOP_LIMIT: Duration = Duration::from_secs(20);
const WINDOW: (u32, u32) = (1280, 800);

#[tokio::test(flavor = "multi_thread")]
async fn it_prints_a_link_to_a_call_and_a_signal_ends_everything() -> Result<()> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().min(60_000);
    let (mut dev, link) = start(port).await?;
    let browser = Browser::launch().await?;
    let ada = enter(&browser, "Ada", &link).await?;
    let bob = enter(&browser, "Bob", &link).await?;
    for page in [&ada, &bob] {
        page.until(
            "[...document.querySelectorAll('.tile.has-video video')].filter((v) => v.videoWidth > 0).length === 2",
        )
        .await?;
    }

    let id = i32::try_from(dev.id().context("dev has ended")?)?;
    kill(Pid::from_raw(id), Signal::SIGTERM)?;
    let status = timeout(STOP_LIMIT, dev.wait()).await.context("dev does not end")??;
    assert!(status.success(), "dev ended with {status}");
    TcpListener::bind(("127.0.0.1", port)).context("the edge lives on")?;
    for node in 0..2 {
        UdpSocket::bind(("127.0.0.1", port + 20 + node)).context("a node lives on")?;
    }
    std::fs::remove_dir_all(repo::state_dir().join(format!("dev-{port}")))?;
    Ok(())
}

/// Runs the command until it prints the link.
async fn start(port: u16) -> Result<(Child, String)> {
    // On Unix cargo becomes what it runs: the signal reaches xtask itself.
    let mut command = Command::from(repo::cargo());
    command.args(["xtask", "dev", "--port", &port.to_string()]);
    let mut dev = command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    let mut lines = BufReader::new(dev.stdout.take().context("no stdout")?).lines();
    let link = timeout(READY_LIMIT, link(&mut lines)).await.context("dev is not ready")??;
    // Read on, or the command would block on a full pipe.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    Ok((dev, link))
}

async fn link(lines: &mut Lines<BufReader<ChildStdout>>) -> Result<String> {
    let mut seen = Vec::new();
    while let Some(line) = lines.next_line().await? {
        if let Some(link) = line.trim().strip_prefix("Meeting") {
            return link.split_whitespace().next().map(str::to_owned).context("no link");
        }
        seen.push(line);
    }
    bail!("dev ended without a link:\n{}", seen.join("\n"))
}

async fn enter(browser: &Browser, name: &str, link: &str) -> Result<Page> {
    let page = browser.open(name, link, WINDOW).await?;
    page.fill("#name", name).await?;
    page.click(".join-form button[type=submit]").await?;
    page.until("document.querySelector('.meeting')").await?;
    Ok(page)
}
