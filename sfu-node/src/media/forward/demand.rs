//! What a subscriber wants of a track, taken at most every so often: a window that is being resized asks for many sizes.

use std::time::Duration;

use shared::control::Delivery;

use crate::media::forward::clock::Time;
use crate::media::forward::timers::Owner;
use crate::media::forward::{Forwarder, Sink};

/// Least time between two changes (LiveKit's debounce).
const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// One subscription's.
#[derive(Debug)]
pub(crate) struct Demand {
    taken: Delivery,
    taken_at: Option<Time>,
    /// Asked for since.
    asked: Option<Delivery>,
}

impl Demand {
    pub(crate) fn new(delivery: Delivery) -> Self {
        Self { taken: delivery, taken_at: None, asked: None }
    }

    /// What holds now.
    pub(crate) fn taken(&self) -> Delivery {
        self.taken
    }

    /// The subscriber asks for something: a pause ends at once, anything else when it is time.
    pub(crate) fn ask(&mut self, now: Time, delivery: Delivery) {
        self.asked = (delivery != self.taken).then_some(delivery);
        let resumes = self.taken.paused && !delivery.paused;
        if resumes || self.due().is_some_and(|due| due <= now) {
            self.take(now);
        }
    }

    /// When what was asked for last is to be taken.
    pub(crate) fn due(&self) -> Option<Time> {
        self.asked?;
        Some(self.taken_at.map_or(Time::default(), |at| at.plus(MIN_INTERVAL)))
    }

    /// Takes what is due. True when that is a change.
    pub(crate) fn take_due(&mut self, now: Time) -> bool {
        self.due().is_some_and(|due| due <= now) && self.take(now)
    }

    fn take(&mut self, now: Time) -> bool {
        let Some(delivery) = self.asked.take() else { return false };
        (self.taken, self.taken_at) = (delivery, Some(now));
        true
    }
}

impl Forwarder {
    /// Takes what a transport's subscriptions asked for when it is time.
    pub(super) fn schedule_demand(&mut self, slot: usize) {
        let Self { transports, subscriptions, timers, .. } = self;
        let Some(transport) = transports.get_mut(slot) else { return };
        let due = transport.subscriptions.iter().filter_map(|known| subscriptions.get(*known)?.demand.due());
        transport.demand_due = due.min();
        if let Some(due) = transport.demand_due {
            timers.arm(Owner::Transport(slot), due);
        }
    }

    /// Takes what is due of a transport's subscriptions.
    pub(super) fn take_demand<S: Sink>(&mut self, now: Time, slot: usize, sink: &mut S) {
        let Some(transport) = self.transports.get(slot) else { return };
        let mut changed = Vec::new();
        for known in &transport.subscriptions {
            let Some(subscription) = self.subscriptions.get_mut(*known) else { continue };
            if subscription.demand.take_due(now) {
                changed.push(subscription.track);
                if subscription.delivery().paused {
                    subscription.pause();
                }
            }
        }
        self.schedule_demand(slot);
        for track in changed {
            self.request_keyframe(now, track, Some(slot));
            self.serve_track(now, track, sink);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(max_layer: u8) -> Delivery {
        Delivery { max_layer: Some(max_layer), ..Delivery::default() }
    }

    #[test]
    fn of_a_burst_the_first_and_the_last_are_taken() {
        let mut demand = Demand::new(Delivery::default());
        demand.ask(Time(0), layer(0));
        assert_eq!(demand.taken(), layer(0), "at once");
        demand.ask(Time(10_000), layer(1));
        demand.ask(Time(20_000), layer(2));
        assert_eq!((demand.taken(), demand.due()), (layer(0), Some(Time(100_000))));
        assert!(!demand.take_due(Time(99_999)));
        assert!(demand.take_due(Time(100_000)));
        assert_eq!((demand.taken(), demand.due()), (layer(2), None));
    }

    #[test]
    fn who_changes_its_mind_changes_nothing() {
        let mut demand = Demand::new(Delivery::default());
        demand.ask(Time(0), layer(0));
        demand.ask(Time(10_000), layer(1));
        demand.ask(Time(20_000), layer(0));
        assert_eq!((demand.taken(), demand.due()), (layer(0), None));
    }

    #[test]
    fn a_pause_ends_at_once() {
        let paused = Delivery { paused: true, ..Delivery::default() };
        let mut demand = Demand::new(Delivery::default());
        demand.ask(Time(0), paused);
        demand.ask(Time(1), layer(1));
        assert_eq!(demand.taken(), layer(1));
        demand.ask(Time(2), paused);
        assert_eq!(demand.taken(), layer(1), "but does not begin so");
    }
}
