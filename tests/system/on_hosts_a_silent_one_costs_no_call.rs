//! The host under a call falls silent: what is sent to it and by it vanishes, and nobody is told. The call goes on elsewhere,
//! on the same connection, and what comes back finds no session of its own.

use anyhow::Result;
use meridian_tests::call::{Call, Sdk};
use meridian_tests::sdk::Mode;

/// One that falls silent, one to go to.
const HOSTS: u8 = 2;
const BROWSERS: [(&str, Sdk); 2] = [("ada", Sdk::Browser), ("bob", Sdk::Browser)];

#[tokio::test(flavor = "multi_thread")]
async fn and_comes_back() -> Result<()> {
    let call = Call::open_on_hosts(HOSTS, Mode::Single, &BROWSERS).await?;
    call.data_gets_through("before").await?;
    let since = call.marks().await?;
    let serving = call.serving().await?;
    call.stillness().await?;
    call.cut(serving, true)?;
    call.data_gets_through("after").await?;
    call.goes_on().await?;
    println!("the pictures stood still for {:.0} ms", call.stillness().await?);
    call.cut(serving, false)?;
    call.is_left(serving).await?;
    call.goes_on().await?;
    call.heard_of_no_end(&since).await
}
