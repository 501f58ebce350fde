//! What browser SDKs leave out of their client info and the User-Agent header has: browser and operating system.

use livekit_protocol::ClientInfo;
use livekit_protocol::client_info::Sdk;

/// Name in the header, LiveKit's name. The first that occurs wins: every browser also claims to be an older one.
const BROWSERS: [(&str, &str); 5] =
    [("Firefox/", "firefox"), ("Edg/", "edge"), ("OPR/", "opera"), ("Chrome/", "chrome"), ("Safari/", "safari")];
const SYSTEMS: [(&str, &str); 6] = [
    ("Android", "android"),
    ("iPhone", "ios"),
    ("iPad", "ios"),
    ("Windows", "windows"),
    ("Mac OS X", "macos"),
    ("Linux", "linux"),
];

/// Fills in what the client did not say, for SDKs that live in a browser.
pub fn complete(client: &mut ClientInfo, user_agent: &str) {
    if !matches!(client.sdk(), Sdk::Js | Sdk::ReactNative | Sdk::Flutter | Sdk::Unity | Sdk::Unknown) {
        return;
    }
    if client.browser.is_empty()
        && let Some((name, browser)) = BROWSERS.iter().find(|(name, _)| user_agent.contains(name))
    {
        client.browser = (*browser).to_owned();
        client.browser_version = version_after(user_agent, name);
    }
    if client.os.is_empty()
        && let Some((_, os)) = SYSTEMS.iter().find(|(name, _)| user_agent.contains(name))
    {
        client.os = (*os).to_owned();
    }
}

fn version_after(user_agent: &str, name: &str) -> String {
    let rest = user_agent.split_once(name).map_or("", |(_, rest)| rest);
    rest.chars().take_while(|c| c.is_ascii_digit() || *c == '.').take(32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHROME: &str =
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/139.0.0.0 Safari/537.36";
    const FIREFOX: &str = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:141.0) Gecko/20100101 Firefox/141.0";

    #[test]
    fn browsers() {
        let mut client = ClientInfo { sdk: Sdk::Js as i32, ..ClientInfo::default() };
        complete(&mut client, CHROME);
        assert_eq!([&*client.browser, &*client.browser_version, &*client.os], ["chrome", "139.0.0.0", "linux"]);
        let mut client = ClientInfo { sdk: Sdk::Js as i32, ..ClientInfo::default() };
        complete(&mut client, FIREFOX);
        assert_eq!([&*client.browser, &*client.browser_version, &*client.os], ["firefox", "141.0", "macos"]);
    }

    #[test]
    fn what_the_client_says_stands() {
        let mut client = ClientInfo { sdk: Sdk::Python as i32, ..ClientInfo::default() };
        complete(&mut client, CHROME);
        assert_eq!(client.browser, "");
        let mut client = ClientInfo { os: "plan9".into(), ..ClientInfo::default() };
        complete(&mut client, FIREFOX);
        assert_eq!(client.os, "plan9");
    }
}
