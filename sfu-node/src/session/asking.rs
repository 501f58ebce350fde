//! Asking a client with a single connection for sections: only it can offer them.

use shared::control::{NodeToRoom, TrackKind};

use crate::session::{Output, Session};

/// How often in a row a client is asked for sections that do not help.
pub(super) const MAX_FRUITLESS_ASKS: u8 = 3;

/// Sections the client was asked for and has not offered yet.
#[derive(Debug)]
pub(super) struct Ask {
    audios: usize,
    videos: usize,
    /// Receiving sections when first asked.
    had: (usize, usize),
    /// An offer came without them: it may have been on its way already.
    crossed: bool,
}

impl Session {
    /// Single connection: makes the client offer when something is to be negotiated, with the sections that are missing.
    pub(super) fn ask_for_sections(&mut self, out: &mut Output) {
        if self.publisher.remote().is_none() || !self.subscriptions.has_changed() || self.asks_left == 0 {
            return;
        }
        let (free_audio, all_audio) = self.sections_for(TrackKind::Audio);
        let (free_video, all_video) = self.sections_for(TrackKind::Video);
        let missing_audios = self.subscriptions.waiting(TrackKind::Audio).saturating_sub(free_audio);
        let missing_videos = self.subscriptions.waiting(TrackKind::Video).saturating_sub(free_video);
        let is_first = self.ask.is_none();
        let ask = self.ask.get_or_insert(Ask { audios: 0, videos: 0, had: (all_audio, all_video), crossed: false });
        let audios = missing_audios.saturating_sub(ask.audios);
        let videos = missing_videos.saturating_sub(ask.videos);
        if is_first || audios > 0 || videos > 0 {
            ask.audios += audios;
            ask.videos += videos;
            self.asks_left -= 1;
            out.messages.push(NodeToRoom::SectionsNeeded {
                session: self.params.key.clone(),
                audios: u32::try_from(audios).unwrap_or(u32::MAX),
                videos: u32::try_from(videos).unwrap_or(u32::MAX),
            });
        }
    }

    /// After an offer: the sections asked for are there, or will still come if the offer crossed the request.
    pub(super) fn settle_ask(&mut self) {
        let (_, all_audio) = self.sections_for(TrackKind::Audio);
        let (_, all_video) = self.sections_for(TrackKind::Video);
        self.ask = self.ask.take().filter(|ask| {
            let came = all_audio >= ask.had.0 + ask.audios && all_video >= ask.had.1 + ask.videos;
            !came && !ask.crossed
        });
        if let Some(ask) = &mut self.ask {
            ask.crossed = true;
        }
    }

    /// Sections of `kind` that are free, and all.
    fn sections_for(&self, kind: TrackKind) -> (usize, usize) {
        self.publisher.sections_for(kind, &self.params.client, &self.subscriptions)
    }

    /// Tracks that have no section yet.
    pub(super) fn waiting(&self) -> usize {
        self.subscriptions.waiting(TrackKind::Audio) + self.subscriptions.waiting(TrackKind::Video)
    }
}
