//! How well a transport carries media is scored from what was lost, and told when that is news.

use rtc::rtcp::reception_report::ReceptionReport;

use super::*;
use crate::media::forward::health::window;

const BOB: u64 = 20;

struct Call {
    world: World,
    camera: Encoder,
    viewer: Viewer,
    highest: u32,
    lost: u32,
    /// When the viewer reports next.
    report_at: Instant,
}

impl Call {
    fn new() -> Self {
        let mut world = World::new();
        world.publish(vec![camera(&[], &[(1000, 1001)])]);
        let viewer = world.viewer(BOB, vec![watch(3000)]);
        let report_at = world.now;
        Self { world, camera: Encoder::new(1000, None), viewer, highest: 0, lost: 0, report_at }
    }

    /// Two windows of 50 packets a second, of which each `lost.0`th does not reach the node, and each `lost.1`th not the
    /// viewer; 0: none. The scores told.
    fn run(&mut self, lost: (u32, u32)) -> Vec<(u64, u8)> {
        let end = self.world.now + 2 * window();
        let mut sent = 0;
        while self.world.now < end {
            for packet in self.camera.frame(sent == 0, 1) {
                sent += 1;
                if lost.0 == 0 || sent % lost.0 > 0 {
                    self.world.rtp(ADA, &packet);
                    self.highest += 1;
                    self.lost += u32::from(lost.1 > 0 && self.highest.is_multiple_of(lost.1));
                }
            }
            self.world.pass(Duration::from_millis(20));
            if self.world.now >= self.report_at {
                self.report_at += Duration::from_secs(1);
                let (last_sequence_number, total_lost) = (self.highest, self.lost);
                let report = ReceptionReport { ssrc: 3000, last_sequence_number, total_lost, ..Default::default() };
                self.world.rtcp(self.viewer.transport, &[Box::new(rtcp::receiver_report(1, vec![report]))]);
            }
        }
        self.world.out.rtp.clear();
        self.scores()
    }

    fn scores(&mut self) -> Vec<(u64, u8)> {
        let score = |event| match event {
            Event::Score { transport, score } => Some((transport.0, score)),
            _ => None,
        };
        std::mem::take(&mut self.world.out.events).into_iter().filter_map(score).collect()
    }
}

#[test]
fn loss_on_the_way_to_the_node_is_the_publishers() {
    let mut call = Call::new();
    assert_eq!(call.run((0, 0)), []);
    let scores = call.run((25, 0));
    assert!(matches!(scores[..], [(transport, 55..=65)] if transport == ADA.0), "4 % of video: {scores:?}");
    let scores = call.run((0, 0));
    let stats = call.world.forwarder.stats();
    assert_eq!((stats.received_lost, stats.sent_lost), (20, 0), "of 500");
    // What was missing last is counted in the window after.
    assert!(matches!(scores.last(), Some((transport, 95..=100)) if *transport == ADA.0), "{scores:?}");
}

#[test]
fn loss_that_a_subscriber_reports_is_its_own() {
    let mut call = Call::new();
    let scores = call.run((0, 20));
    assert!(matches!(scores[..], [(BOB, 45..=55)]), "5 % of video: {scores:?}");
    assert_eq!(call.run((0, 20)), [], "nothing new");
    let scores = call.run((0, 0));
    assert_eq!(scores.last(), Some(&(BOB, 100)), "{scores:?}");
    let stats = call.world.forwarder.stats();
    assert_eq!((stats.received_lost, stats.sent_lost), (0, 50), "of 1000");
}

#[test]
fn where_nothing_flows_nothing_is_wrong() {
    let mut call = Call::new();
    assert_eq!(call.run((20, 0)).len(), 1);
    call.world.pass(Duration::from_secs(10));
    assert_eq!(call.scores(), [(ADA.0, 100)]);
}
