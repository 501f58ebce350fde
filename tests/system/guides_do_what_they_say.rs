//! The lines of the guides are run as they stand, in order, and answer what the guides say. Only the edge's address is put in.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::net::TcpListener;
use std::process::Stdio;

use meridian_tests::client::DEADLINE;
use meridian_tests::guide;
use meridian_tests::scene::{Deployment, Scene};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;
use xtask::repo;

/// Where `cargo xtask dev` serves the edge.
const EDGE: &str = "http://localhost:7880";
/// What stands for anything, in what a guide has answered.
const ANYTHING: char = '…';
/// Ends what one block of a guide says.
const END: &str = "-- end of a block --";

/// A fenced block: its language and its lines.
struct Block {
    language: String,
    text: String,
}

fn blocks(guide: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut inside = false;
    for line in guide.lines() {
        match (line.strip_prefix("```"), inside) {
            (Some(language), false) => {
                blocks.push(Block { language: language.to_owned(), text: String::new() });
                inside = true;
            }
            (Some(_), true) => inside = false,
            (None, true) => blocks.last_mut().unwrap().text.extend([line, "\n"]),
            (None, false) => {}
        }
    }
    blocks
}

/// One script of all blocks, so that what one sets the next ones have, and what each of them is to say.
fn script(blocks: &[Block]) -> (String, Vec<Option<String>>) {
    let (mut script, mut said) = ("set -euo pipefail\n".to_owned(), Vec::new());
    for block in blocks {
        match block.language.as_str() {
            "sh" => script.extend([&block.text, "\n"]),
            "js" => script.extend(["node --input-type=module <<'JS'\n", &block.text, "JS\n"]),
            "output" => {
                *said.last_mut().unwrap() = Some(block.text.trim().to_owned());
                continue;
            }
            _ => continue,
        }
        script.extend(["echo; echo '", END, "'\n"]);
        said.push(None);
    }
    (script, said)
}

/// Whether a text is this, with anything in the gaps.
fn is_like(text: &str, wanted: &str) -> bool {
    let mut rest = text;
    let pieces: Vec<&str> = wanted.split(ANYTHING).collect();
    for (number, piece) in pieces.iter().enumerate() {
        let Some(at) = rest.find(piece).filter(|at| number > 0 || *at == 0) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.is_empty() || wanted.ends_with(ANYTHING)
}

async fn says_what_it_does(guide: &str, url: &str) {
    let text = std::fs::read_to_string(repo::root().join("docs").join(guide)).unwrap();
    let (script, wanted) = script(&blocks(&text.replace(EDGE, url)));
    let mut bash = Command::new("bash");
    bash.arg("-c").arg(&script).current_dir(repo::root()).stdin(Stdio::null());
    let done = bash.output().await.unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{guide}: {said}\n{}", String::from_utf8_lossy(&done.stderr));
    let answers: Vec<&str> = said.split(END).map(str::trim).collect();
    assert_eq!(answers.len(), wanted.len() + 1, "{guide}: {said}");
    for (answer, wanted) in answers.iter().zip(wanted) {
        assert!(!answer.is_empty(), "{guide}: a block says nothing");
        let Some(wanted) = wanted else { continue };
        let lines = (answer.lines().count(), wanted.lines().count());
        let alike =
            lines.0 == lines.1 && answer.lines().zip(wanted.lines()).all(|(said, wanted)| is_like(said, wanted));
        assert!(alike, "{guide} says\n{wanted}\nand it is\n{answer}");
    }
}

#[tokio::test]
async fn tokens() {
    let scene = Scene::alone(0).await.unwrap();
    says_what_it_does("tokens.md", scene.url()).await;
}

#[tokio::test]
async fn the_server_api() {
    let mut scene = Scene::alone(1).await.unwrap();
    "den".clone_into(&mut scene.room);
    let (mut ada, bob) = (scene.join("ada").await.unwrap(), scene.join("bob").await.unwrap());
    says_what_it_does("server-api.md", scene.url()).await;
    ada.until("bob gone", |o| (!o.participants.contains_key("bob")).then_some(())).await.unwrap();
    drop(bob);
}

#[tokio::test]
async fn webhooks() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let program = guide::block("webhooks.md", "js", "WebhookReceiver").unwrap();
    let program = program.replace("listen(3000)", &format!("listen({port}, () => console.log('listens'))"));
    let mut node = Command::new("node");
    node.args(["--input-type=module", "--eval", &program]).current_dir(repo::root()).kill_on_drop(true);
    let mut receiver = node.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(receiver.stdout.take().unwrap()).lines();
    assert_eq!(said.next_line().await.unwrap().as_deref(), Some("listens"));

    let urls = ("WEBHOOK_URLS".to_owned(), format!("http://localhost:{port}"));
    let start = move || Deployment::with_edge_vars([urls]);
    let scene = Scene::on(tokio::task::spawn_blocking(start).await.unwrap().unwrap());
    let lines = guide::block("webhooks.md", "sh", "CreateRoom").unwrap().replace(EDGE, scene.url());
    let mut bash = Command::new("bash");
    let done = bash.args(["-euo", "pipefail", "-c", &lines]).stdin(Stdio::null()).output().await.unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    for wanted in guide::block("webhooks.md", "output", "room_started").unwrap().lines() {
        let line = timeout(DEADLINE, said.next_line()).await.expect("an event").unwrap();
        assert_eq!(line.as_deref(), Some(wanted));
    }
}

#[test]
fn a_gap_is_anything_and_nothing_else_is() {
    assert!(is_like("a1b2c", "a…b…c") && is_like("abc", "abc") && is_like("abc", "…c") && is_like("abc", "a…"));
    for wanted in ["ab", "bc", "b…", "…b", "a…d", ""] {
        assert!(!is_like("abc", wanted), "{wanted}");
    }
}
