//! How well a participant's media gets through: as the worse of its transports does.

use shared::control::BEST_SCORE;

use crate::media::api::TransportKey;

/// Scores of a session's transports.
#[derive(Debug, Default)]
pub(crate) struct Quality {
    /// Those that are not the best.
    scores: Vec<(TransportKey, u8)>,
    /// What the room knows; `None`: nothing yet.
    told: Option<Option<u8>>,
    /// It may not have heard how those fare whose tracks it gets.
    pub(crate) newcomer: bool,
}

impl Quality {
    /// A transport carries so well now.
    pub(crate) fn set(&mut self, transport: TransportKey, score: u8) {
        self.scores.retain(|(known, _)| *known != transport);
        if score < BEST_SCORE {
            self.scores.push((transport, score));
        }
    }

    /// The score; `None`: it is lost.
    pub(crate) fn score(&self, lost: bool) -> Option<u8> {
        let worst = self.scores.iter().map(|(_, score)| *score).min();
        (!lost).then(|| worst.unwrap_or(BEST_SCORE))
    }

    /// The score is as the room was told. If not, it is from now on.
    pub(crate) fn settle(&mut self, lost: bool) -> bool {
        let score = self.score(lost);
        self.told.replace(score) == Some(score)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worse_transport_counts_and_each_change_is_news_once() {
        let (one, two) = (TransportKey(1), TransportKey(2));
        let mut quality = Quality::default();
        assert!(!quality.settle(false), "the first is news");
        assert!(quality.settle(false));
        quality.set(one, 50);
        quality.set(two, 70);
        assert_eq!(quality.score(false), Some(50));
        assert!(!quality.settle(false));
        quality.set(two, 60);
        assert!(quality.settle(false), "the worse one did not change");
        quality.set(one, BEST_SCORE);
        assert_eq!(quality.score(false), Some(60));
        assert!(!quality.settle(true) && quality.settle(true) && !quality.settle(false));
    }
}
