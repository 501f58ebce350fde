//! Publishers that receive nothing, in a thread of their own so that receiving does not delay their sending.

use std::ops::Range;
use std::thread;

use anyhow::{Context, Result, bail};
use tokio::runtime;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::scenario::Tracks;
use crate::client::{DEADLINE, MediaOptions};
use crate::door::{Caller, Door};

/// One of them.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// Its room.
    pub room: u64,
    /// Its id there.
    pub id: u64,
    /// What it sends.
    pub tracks: Tracks,
}

/// In which window, and where to tell how many packets each sent in it.
type Question = (Range<u64>, oneshot::Sender<Vec<usize>>);

/// Those of a load.
pub struct Publishers {
    questions: mpsc::Sender<Question>,
    ended: oneshot::Receiver<Result<()>>,
}

impl Publishers {
    /// Lets them join; they send when this returns.
    ///
    /// # Errors
    /// Somebody cannot join.
    pub async fn start(door: &Door, places: Vec<Place>, media: MediaOptions) -> Result<Self> {
        let door = door.clone();
        let (questions, asked) = mpsc::channel(1);
        let (ready, is_ready) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        thread::spawn(move || {
            let sending = runtime::Builder::new_current_thread().enable_all().build();
            let publishing = publish(&door, &places, &media, ready, asked);
            let result = sending.map_err(Into::into).and_then(|r| r.block_on(publishing));
            // Nobody waits for the end of a measurement that failed.
            let _ = end.send(result);
        });
        let publishers = Self { questions, ended };
        match timeout(DEADLINE, is_ready).await.context("the publishers did not get ready")? {
            Ok(()) => Ok(publishers),
            Err(_) => bail!(publishers.leave().await.err().context("the publishers ended")?),
        }
    }

    /// How many packets each sent in a window.
    ///
    /// # Errors
    /// They ended.
    pub async fn sent(&self, window: Range<u64>) -> Result<Vec<usize>> {
        let (answer, answered) = oneshot::channel();
        self.questions.send((window, answer)).await.ok().context("the publishers ended")?;
        answered.await.context("the publishers ended")
    }

    /// Lets them leave their rooms; says what went wrong with them.
    ///
    /// # Errors
    /// The first of that.
    pub async fn leave(self) -> Result<()> {
        drop(self.questions);
        self.ended.await.context("the publishers' thread panicked")?
    }
}

/// Sends until nobody can ask any more.
async fn publish(
    door: &Door,
    places: &[Place],
    media: &MediaOptions,
    ready: oneshot::Sender<()>,
    mut asked: mpsc::Receiver<Question>,
) -> Result<()> {
    let mut clients: Vec<Caller> = Vec::new();
    for Place { room, id, tracks } in places {
        let mut client = door.publish(*room, *id, tracks.publish(), media).await?;
        client.connected().await?;
        clients.push(client);
    }
    // Whoever waited for it or asked may have failed meanwhile.
    let _ = ready.send(());
    while let Some((window, answer)) = asked.recv().await {
        let mut sent = Vec::new();
        for client in &clients {
            sent.push(client.sent_within(window.clone()).await?);
        }
        let _ = answer.send(sent);
    }
    for client in clients {
        client.leave().await?;
    }
    Ok(())
}
