//! A peer that another node served before: it goes on counting where that one stopped, as libwebrtc does.

use std::collections::BTreeMap;

use super::*;
use crate::media::forward::clock::{wrap16, wrap32};

/// libwebrtc's: feedback tells of all from the least new number to the greatest, and of a number the first arrival.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    known: BTreeMap<u64, u64>,
    newest: Option<u64>,
    /// First number of the next feedback.
    next: u64,
}

/// How long an arrival is remembered, microseconds.
const REMEMBERED: u64 = 500_000;
const RECEIVED_ONE: u16 = 0x4001;
const LONGEST_RUN: u64 = 8191;

impl Arrivals {
    pub(super) fn record(&mut self, at: u64, number: u16) {
        let newest = *self.newest.get_or_insert(0x1_0000 + u64::from(number));
        let number = newest.wrapping_add_signed(number.wrapping_sub(wrap16(newest)).cast_signed().into());
        self.newest = Some(number);
        if self.known.range(self.next..).next().is_none() {
            self.known.retain(|known, arrival| *known >= number || at - *arrival < REMEMBERED);
        }
        self.next = self.next.min(number);
        self.known.entry(number).or_insert(at);
    }

    /// What follows the two SSRCs.
    pub(super) fn report(&mut self) -> Option<Vec<u8>> {
        let (first, at) = self.known.range(self.next..).next()?;
        let reference = at / REFERENCE_UNIT.unsigned_abs();
        let (mut expected, mut last) = (*first, (reference * REFERENCE_UNIT.unsigned_abs()).cast_signed());
        let (mut chunks, mut deltas) = (Vec::new(), Vec::new());
        for (number, at) in self.known.range(*first..) {
            let ticks = (at.cast_signed() - last) / 250;
            let Ok(delta) = i16::try_from(ticks) else { break };
            last += ticks * 250;
            while expected < *number {
                let run = (number - expected).min(LONGEST_RUN);
                chunks.extend(wrap16(run).to_be_bytes());
                expected += run;
            }
            chunks.extend(RECEIVED_ONE.to_be_bytes());
            deltas.extend(delta.to_be_bytes());
            expected += 1;
        }
        self.next = expected;
        let mut body = Vec::new();
        body.extend(wrap16(*first).to_be_bytes());
        body.extend(wrap16(expected - first).to_be_bytes());
        body.extend(wrap32(reference).to_be_bytes().get(1..)?);
        body.push(0);
        Some([body, chunks, deltas].concat())
    }
}

#[test]
fn a_peer_that_another_node_served_before_is_sent_as_much_as_its_path_carries() {
    for before in [200, 700, 3_000, 10_000, 120_000, 250_000] {
        for capacity in [3e6, 20e6] {
            eprintln!("{before} ms on a path of {capacity} bit/s");
            let mut run = Run::new(Path::new(capacity, 20_000));
            run.recorder = Recorder::Libwebrtc(Arrivals::default());
            run.pass(before * 1_000);
            run.move_here();
            run.reaches(2, 1);
            run.keeps(2, 60);
            assert!(run.bandwidth.estimate() > LAYERS[2], "{} bit/s after {before} ms", run.bandwidth.estimate());
        }
    }
}

#[test]
fn numbers_go_on_where_the_peers_count_is() {
    let mut run = Run::new(Path::new(20e6, 20_000));
    run.recorder = Recorder::Libwebrtc(Arrivals::default());
    run.seconds(20);
    let former = run.bandwidth.next_number();
    run.move_here();
    assert!(run.bandwidth.next_number() < former);
    run.seconds(1);
    assert!(run.bandwidth.next_number() > former);
}
