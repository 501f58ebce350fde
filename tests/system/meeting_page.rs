//! The meeting page, used as people would: two browsers, names, a shared link, mute, chat, a shared screen.

use anyhow::Result;
use meridian_tests::browser::{Browser, Page};
use meridian_tests::scene::Scene;
use xtask::repo;

const DESKTOP: (u32, u32) = (1280, 800);
const PHONE: (u32, u32) = (390, 844);

#[tokio::test(flavor = "multi_thread")]
async fn two_people_meet() -> Result<()> {
    meet("").await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_people_meet_on_two_peer_connections() -> Result<()> {
    meet("?mode=dual").await
}

async fn meet(query: &str) -> Result<()> {
    let (scene, browser) = (Scene::open().await?, Browser::launch().await?);
    let link = format!("{}/{query}#room={}", scene.url(), scene.room);
    let ada = browser.open("ada", &link, DESKTOP).await?;
    let bob = browser.open("bob", &link, PHONE).await?;
    enter(&ada, "Ada").await?;
    enter(&bob, "Bob").await?;
    for page in [&ada, &bob] {
        page.until("document.querySelector('.count').textContent === '2'").await?;
        page.until(
            "[...document.querySelectorAll('.tile.has-video video')].filter((v) => v.videoWidth > 0).length === 2",
        )
        .await?;
    }
    ada.until("[...document.querySelectorAll('.tile .name')].some((name) => name.textContent === 'Bob')").await?;
    ada.until("[...document.querySelectorAll('audio')].some((sound) => sound.currentTime > 0)").await?;

    bob.click("[data-control=mic]").await?;
    ada.until("document.querySelectorAll('.tile.muted').length === 1").await?;
    bob.click("[data-control=camera]").await?;
    ada.until("document.querySelectorAll('.tile.has-video').length === 1").await?;

    bob.click("[data-control=chat]").await?;
    bob.fill(".chat input", "Can you read this?").await?;
    bob.click(".chat form button").await?;
    ada.until("document.querySelector('.badge').textContent === '1'").await?;
    ada.click("[data-control=chat]").await?;
    ada.until("document.querySelector('.messages').textContent.includes('Can you read this?')").await?;
    bob.click(".chat header button").await?;

    ada.click("[data-control=screen]").await?;
    bob.until("document.querySelector('.focus .tile.has-video video')?.videoWidth > 0").await?;
    let pictures = repo::target_dir().join("screenshots");
    std::fs::create_dir_all(&pictures)?;
    ada.screenshot(&pictures.join("meeting-desktop.png")).await?;
    bob.screenshot(&pictures.join("meeting-phone.png")).await?;

    ada.click("[data-control=leave]").await?;
    ada.until("document.querySelector('.prejoin')").await?;
    bob.until("document.querySelectorAll('.tile').length === 1").await
}

async fn enter(page: &Page, name: &str) -> Result<()> {
    page.fill("#name", name).await?;
    page.click(".join-form button[type=submit]").await?;
    page.until("document.querySelector('.meeting')").await
}
