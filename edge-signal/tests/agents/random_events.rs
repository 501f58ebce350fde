//! Anything may happen in any order. The world checks every event; a seed that ever failed is kept in `SEEDS`.

use edge_signal::agents::event::Event;
use edge_signal::agents::link::Wishes;
use livekit_protocol as proto;
use livekit_protocol::{JobStatus, JobType};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use shared::ids::{JobId, WorkerId};

use crate::world::{World, sid, watching, wishes};

/// Runs of 300 events each.
const RUNS: u64 = 100;
const EVENTS: usize = 300;
/// Seeds that found a bug once.
const SEEDS: [u64; 0] = [];

#[test]
fn any_order_of_events_keeps_the_registry_consistent() {
    for seed in SEEDS.into_iter().chain(0..RUNS) {
        println!("seed {seed}"); // shown when the run fails
        let mut chaos = Chaos { world: World::new(), rng: ChaCha8Rng::seed_from_u64(seed), next: 0 };
        for _ in 0..EVENTS {
            chaos.one_event();
        }
        chaos.all_ends();
    }
}

struct Chaos {
    world: World,
    rng: ChaCha8Rng,
    next: u8,
}

impl Chaos {
    fn below(&mut self, limit: usize) -> usize {
        self.rng.next_u32() as usize % limit.max(1)
    }

    fn worker(&mut self) -> Option<WorkerId> {
        let all: Vec<_> = self.world.sockets.keys().cloned().collect();
        (!all.is_empty()).then(|| all[self.below(all.len())].clone())
    }

    fn job(&mut self) -> String {
        JobId::from_random([self.below(12) as u8; 12]).to_string()
    }

    fn one_event(&mut self) {
        let (names, kinds) = (["", "scribe"], [JobType::JtRoom, JobType::JtParticipant]);
        let (name, kind) = (names[self.below(2)], kinds[self.below(2)]);
        let (job, flag) = (self.job(), self.below(2) == 0);
        let Some(worker) = self.worker() else {
            self.next = self.next.wrapping_add(1);
            self.world.worker(self.next, name, kind);
            return;
        };
        match self.below(14) {
            0 => {
                self.next = self.next.wrapping_add(1);
                self.world.worker(self.next, name, kind);
            }
            1 => self.world.cut(&worker),
            2 | 3 => {
                let load = self.below(10) as f32 / 10.0;
                self.world.report(&worker, flag, load);
            }
            4 | 5 => {
                let number = self.below(12) as u8;
                self.world.launch(number, name, kind);
            }
            6 | 7 => {
                for offer in self.world.offers(&worker) {
                    let available = self.below(3) > 0;
                    self.world.answer_offer(&worker, &offer, available);
                }
            }
            8 => self.world.update_job(&worker, &job, [JobStatus::JsSuccess, JobStatus::JsFailed][usize::from(flag)]),
            9 => {
                let request = proto::MigrateJobRequest { job_ids: vec![job] };
                self.world.say(&worker, proto::worker_message::Message::MigrateJob(request));
            }
            10 => {
                let end = vec![JobId::try_from(job).unwrap()];
                self.world.wish(Wishes { end, automatic: flag, ..wishes() });
            }
            11 => drop(self.world.wish(watching(&[names[1]][..usize::from(flag)]))),
            12 if self.below(4) == 0 => self.world.restart(),
            12 if self.below(10) == 0 => {
                self.world.step(Event::RoomOver { room: wishes().room, sid: sid() });
            }
            12 => drop(self.world.tell()),
            _ => {
                let ms = [10, 900, 5_000, 40_000][self.below(4)];
                self.world.pass(ms);
            }
        }
    }

    /// However it went: when no worker is left and nothing is wanted, nothing is left.
    fn all_ends(&mut self) {
        let workers: Vec<_> = self.world.sockets.keys().cloned().collect();
        workers.iter().for_each(|worker| self.world.cut(worker));
        let end = (0..12).map(|number| JobId::from_random([number; 12])).collect();
        self.world.wish(Wishes { end, watch: Some([].into()), ..wishes() });
        self.world.tell();
        self.world.pass(60_000);
        assert!(self.world.registry.news(self.world.now).is_empty());
        assert_eq!(self.world.registry.deadline(self.world.now), None);
    }
}
