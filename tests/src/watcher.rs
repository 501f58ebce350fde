//! Participants that only watch, many of them: a signal connection each, and what they were told on it.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Result, ensure};
use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::signal_response::Message as Response;
use livekit_protocol::{ConnectionSettings, JoinRequest, ParticipantInfo, SignalResponse, participant_info};
use prost::Message;
use shared::claims::AccessClaims;
use tokio::sync::{mpsc, watch};

use crate::scene::sign;
use crate::sdk::PATIENCE;
use crate::signal::{Heard, Mode, Signal, join_request};

/// What one was told.
#[derive(Debug, Default)]
pub struct Told {
    versions: BTreeMap<String, u32>,
    /// Who is there, by identity, and each metadata it had; oneself is not.
    pub present: BTreeMap<String, Vec<String>>,
    /// Who has left.
    pub left: Vec<String>,
    muted: bool,
    /// When the only track there is was muted, unmuted, and so on.
    pub mutes: Vec<Instant>,
    /// What should not be.
    pub faults: Vec<String>,
    /// Messages since it joined, the first not.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Told {
    fn hear(&mut self, identity: &str, message: Response) {
        if let Response::Join(join) = &message {
            return join.other_participants.iter().for_each(|info| self.take(info));
        }
        if let Response::Update(update) = &message {
            update.participants.iter().filter(|info| info.identity != identity).for_each(|info| self.take(info));
        }
        self.messages += 1;
        self.bytes += SignalResponse { message: Some(message) }.encoded_len() as u64;
    }

    fn take(&mut self, info: &ParticipantInfo) {
        let version = self.versions.entry(info.sid.clone()).or_default();
        if info.version < *version {
            self.faults.push(format!("{} went back from {version} to {}", info.identity, info.version));
        }
        *version = info.version;
        if info.state() == participant_info::State::Disconnected {
            self.present.remove(&info.identity);
            self.left.push(info.identity.clone());
            return;
        }
        let known = self.present.entry(info.identity.clone()).or_default();
        if known.last() != Some(&info.metadata) {
            known.push(info.metadata.clone());
        }
        if let Some(track) = info.tracks.first()
            && track.muted != self.muted
        {
            self.muted = track.muted;
            self.mutes.push(Instant::now());
        }
    }
}

/// A participant that only watches, and has not opened a media connection yet: the room waits a minute for that.
pub struct Watcher {
    /// Who.
    pub identity: String,
    /// What it is to say.
    pub requests: mpsc::Sender<Request>,
    /// What it was told.
    pub told: watch::Receiver<Told>,
}

impl Watcher {
    /// Joins; what comes with it listens, and is to be spawned. `claims`: who it is and where.
    ///
    /// # Errors
    /// It is not let in.
    pub async fn connect(url: &str, mut claims: AccessClaims) -> Result<(Self, impl Future<Output = ()> + use<>)> {
        let identity = claims.sub.clone();
        if let Some(video) = claims.video.as_mut() {
            (video.can_publish, video.can_update_own_metadata) = (Some(false), Some(true));
        }
        let settings = ConnectionSettings { auto_subscribe: false, ..ConnectionSettings::default() };
        let request = JoinRequest { connection_settings: Some(settings), ..join_request() };
        let signal = Signal::join(url, &sign(&claims)?, Mode::Single, &request).await?;
        let (requests, asked) = mpsc::channel(8);
        let (tell, told) = watch::channel(Told::default());
        let listener = listen(signal, identity.clone(), asked, tell);
        Ok((Self { identity, requests, told }, listener))
    }

    /// Waits until `over`.
    ///
    /// # Errors
    /// It is not within [`PATIENCE`], or something should not be.
    pub async fn until(&self, what: &str, over: impl Fn(&Told) -> bool) -> Result<()> {
        let mut told = self.told.clone();
        // What it gives is a lock: held while another one is asked for, it would wait for a listener that waits for it.
        let came = matches!(tokio::time::timeout(PATIENCE, told.wait_for(over)).await, Ok(Ok(_)));
        if !came {
            let told = self.told.borrow();
            let (present, left) = (told.present.len(), told.left.len());
            anyhow::bail!("{} waits for {what}: {present} are there, {left} have left", self.identity);
        }
        ensure!(self.told.borrow().faults.is_empty(), "{}: {:?}", self.identity, self.told.borrow().faults);
        Ok(())
    }
}

async fn listen(mut signal: Signal, identity: String, mut asked: mpsc::Receiver<Request>, tell: watch::Sender<Told>) {
    loop {
        tokio::select! {
            request = asked.recv() => match request {
                Some(request) => signal.send(request).await,
                None => return,
            },
            heard = signal.hear() => match heard {
                Heard::Message(message) => tell.send_modify(|told| told.hear(&identity, *message)),
                Heard::Closed(_) => return,
            },
        }
    }
}
