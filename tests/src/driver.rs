//! A client in a process of its own, asked by lines of JSON: `{ id, … }` there, `{ id, ok }` or `{ id, error }` back.

use std::collections::HashMap;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{Mutex as AsyncMutex, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How long the process may take until it answers its first line.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Longest a call may take: above every limit a call carries itself.
const CALL_LIMIT: Duration = Duration::from_secs(150);
/// How long it may take to end once its stdin is closed.
const END_LIMIT: Duration = Duration::from_secs(5);
/// Id of the line that says the process is ready.
const READY: u64 = 0;

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Result<Value>>>>>;

/// The process. **Dropping it closes its stdin, which ends it and all that it started.**
pub struct Driver {
    child: Child,
    stdin: AsyncMutex<Option<ChildStdin>>,
    waiting: Waiting,
    next: AtomicU64,
    reader: JoinHandle<()>,
}

#[derive(Deserialize)]
struct Answer {
    id: u64,
    ok: Option<Value>,
    error: Option<String>,
}

impl Driver {
    /// Starts it and waits until it is ready. Its stderr is the test's own.
    ///
    /// # Errors
    /// When it cannot be started or ends before it is ready.
    pub async fn start(mut command: Command) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let program = format!("{:?}", command.as_std().get_program());
        let mut child = command.spawn().with_context(|| format!("starting {program}"))?;
        let stdin = child.stdin.take().context("no stdin")?;
        let stdout = child.stdout.take().context("no stdout")?;
        let waiting = Waiting::default();
        let (sender, ready) = oneshot::channel();
        lock(&waiting).insert(READY, sender);
        let reader = tokio::spawn(read_answers(BufReader::new(stdout), Arc::clone(&waiting)));
        timeout(START_LIMIT, ready).await.with_context(|| format!("{program} is not ready"))??.context(program)?;
        let stdin = AsyncMutex::new(Some(stdin));
        Ok(Self { child, stdin, waiting, next: AtomicU64::new(READY + 1), reader })
    }

    /// Asks and waits for the answer; any number may be asked at a time.
    ///
    /// # Errors
    /// What the process answered as its error, or that it ended.
    pub async fn ask<T: DeserializeOwned>(&self, mut request: Value) -> Result<T> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        lock(&self.waiting).insert(id, sender);
        request.as_object_mut().context("a request is an object")?.insert("id".to_owned(), json!(id));
        let line = format!("{request}\n");
        self.stdin.lock().await.as_mut().context("closed")?.write_all(line.as_bytes()).await?;
        let answer = timeout(CALL_LIMIT, answer).await.with_context(|| format!("no answer to {request}"))??;
        let answer = answer.with_context(|| request.to_string())?;
        serde_json::from_value(answer).with_context(|| format!("unexpected answer to {request}"))
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.stdin.get_mut().take();
        let deadline = Instant::now() + END_LIMIT;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        self.reader.abort();
    }
}

async fn read_answers(mut stdout: impl AsyncBufReadExt + Unpin, waiting: Waiting) {
    let mut line = String::new();
    while matches!(stdout.read_line(&mut line).await, Ok(n) if n > 0) {
        if let Err(error) = deliver(&line, &waiting) {
            eprintln!("{error:#}: {line}");
        }
        line.clear();
    }
    for (_, sender) in lock(&waiting).drain() {
        // Who stopped waiting does not care.
        let _ = sender.send(Err(anyhow!("the client's process ended")));
    }
}

fn deliver(line: &str, waiting: &Waiting) -> Result<()> {
    let answer: Answer = serde_json::from_str(line).context("not an answer")?;
    let Some(sender) = lock(waiting).remove(&answer.id) else { bail!("nobody asked this") };
    let result = answer.error.map_or_else(|| Ok(answer.ok.unwrap_or(Value::Null)), |error| Err(anyhow!(error)));
    // Who stopped waiting does not care.
    let _ = sender.send(result);
    Ok(())
}

fn lock(waiting: &Waiting) -> std::sync::MutexGuard<'_, HashMap<u64, oneshot::Sender<Result<Value>>>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}
