//! A subscriber: puts its stream together, asks again for what is missing, tells what arrived, wants now this layer and
//! now that; and judges what it got.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rtc::rtcp::packet::Packet;
use rtc::rtcp::reception_report::ReceptionReport;
use shared::control::{Delivery, TrackKind};

use super::judge::{self, Shown};
use super::label::Label;
use super::peer::{Datagram, Peer};
use super::publisher::{CAMERA, MICROPHONE, OPUS, SCREEN, VP8, VP9};
use super::stream::{Got, Stream};
use super::talk::{Heard, Talker};
use crate::media::api::{ExtensionIds, PayloadType, Sender, ShardIndex, TrackKey};
use crate::media::forward::clock::Time;
use crate::media::forward::rtcp::{self, Said};
use crate::media::forward::rtp::RtpPacket;
use crate::media::forward::twcc::ArrivalRecorder;

const DEPENDENCY: u8 = 4;
const IDS: ExtensionIds = ExtensionIds {
    mid: Some(9),
    rid: None,
    repaired_rid: None,
    transport_cc: Some(8),
    abs_send_time: Some(7),
    audio_level: Some(5),
    dependency_descriptor: Some(DEPENDENCY),
    abs_capture_time: None,
    playout_delay: None,
};
/// Time between two looks at what is missing.
const LOOK: Duration = Duration::from_millis(20);
/// Least time between two requests for one packet.
const RETRY: Duration = Duration::from_millis(120);
/// Time between two requests for a keyframe.
const KEYFRAME_RETRY: Duration = Duration::from_millis(700);
const FEEDBACK: Duration = Duration::from_millis(100);
const REPORTS: Duration = Duration::from_secs(1);

/// What a viewer makes of what it got.
#[derive(Debug, Default)]
pub(super) struct Judgement {
    pub(super) packets: usize,
    pub(super) lost: usize,
    pub(super) switches: usize,
    pub(super) layers: [usize; 3],
    /// Frames of the camera and of the screen that could be shown.
    pub(super) camera: Vec<Shown>,
    pub(super) screen: Vec<Shown>,
    pub(super) audio: usize,
    pub(super) identity: String,
    pub(super) said: u32,
    pub(super) heard: Heard,
}

/// A video that is subscribed to.
struct Video {
    source: TrackKey,
    ssrc: u32,
    stream: Stream,
    /// The last sender report, and when it came.
    last_report: Option<(u32, Instant)>,
    needs_keyframe: bool,
    asked_keyframe: Option<Instant>,
    /// A whole keyframe after this number is still to come.
    awaits_keyframe: Option<u64>,
    delivery: Delivery,
}

pub(super) struct Viewer {
    pub(super) peer: Peer,
    pub(super) at: ShardIndex,
    videos: [Video; 2],
    audio_ssrc: u32,
    audio: Stream,
    pub(super) talker: Talker,
    /// It says something each second.
    pub(super) talks: bool,
    arrivals: ArrivalRecorder,
    origin: Instant,
    next: [Instant; 4],
    random: StdRng,
    /// It does not change its mind, asks for a keyframe until it comes, and forgets with one what came before, as browsers do.
    pub(super) steady: bool,
    /// What came of the camera and the microphone, each once: when and how many bytes.
    pub(super) received: Vec<(Instant, usize)>,
    /// At least as long as a round trip.
    pub(super) retry: Duration,
}

impl Viewer {
    pub(super) fn new(now: Instant, origin: Instant, key: u64, at: ShardIndex, seed: u64) -> Self {
        let ssrc = 1_000_000 + 10 * u32::try_from(key).unwrap();
        let video = |source, ssrc| Video {
            source,
            ssrc,
            stream: Stream::default(),
            last_report: None,
            needs_keyframe: false,
            asked_keyframe: None,
            awaits_keyframe: None,
            delivery: Delivery::default(),
        };
        Self {
            peer: Peer::new(now, key),
            at,
            videos: [video(CAMERA, ssrc), video(SCREEN, ssrc + 3)],
            audio_ssrc: ssrc + 2,
            audio: Stream::default(),
            talker: Talker::new(now),
            talks: false,
            arrivals: ArrivalRecorder::new(),
            origin,
            next: [now + LOOK, now + FEEDBACK, now + REPORTS, now + Duration::from_secs(3)],
            random: StdRng::seed_from_u64(seed),
            steady: false,
            received: Vec::new(),
            retry: RETRY,
        }
    }

    pub(super) fn senders(&self) -> Vec<Sender> {
        let [camera, screen] = &self.videos;
        let camera = Sender {
            source: CAMERA,
            kind: TrackKind::Video,
            mid: "7".into(),
            ssrc: camera.ssrc,
            rtx_ssrc: Some(camera.ssrc + 1),
            described: true,
            payload_types: vec![PayloadType { pt: 120, rtx_pt: Some(121), ..VP8 }],
            extensions: IDS,
            playout_delay: [0; 3],
            cname: "PA_ada".into(),
            delivery: camera.delivery,
            only: None,
        };
        let screen = Sender {
            source: SCREEN,
            mid: "9".into(),
            ssrc: screen.ssrc,
            rtx_ssrc: Some(screen.ssrc + 1),
            payload_types: vec![PayloadType { pt: 122, rtx_pt: Some(123), ..VP9 }],
            delivery: screen.delivery,
            ..camera.clone()
        };
        let audio = Sender {
            source: MICROPHONE,
            kind: TrackKind::Audio,
            mid: "8".into(),
            ssrc: self.audio_ssrc,
            rtx_ssrc: None,
            payload_types: vec![PayloadType { pt: 109, ..OPUS }],
            delivery: Delivery::default(),
            ..camera.clone()
        };
        if self.steady { vec![camera, audio] } else { vec![camera, audio, screen] }
    }

    pub(super) fn next(&self) -> Instant {
        self.next.into_iter().chain([self.peer.next_binding()]).min().unwrap()
    }

    /// Datagrams that are due. True: it wants something else from now on.
    pub(super) fn act(&mut self, now: Instant) -> (Vec<Vec<u8>>, bool) {
        let mut out: Vec<Vec<u8>> = self.peer.binding(now).into_iter().collect();
        if now >= self.next[0] {
            self.next[0] += LOOK;
            self.ask(now, &mut out);
        }
        if now >= self.next[1] {
            self.next[1] += FEEDBACK;
            while let Some(report) = self.arrivals.report(1, self.videos[0].ssrc) {
                out.push(self.peer.protect_rtcp(&[Box::new(report)]));
            }
        }
        if now >= self.next[2] {
            self.next[2] += REPORTS;
            let report = |video: &mut Video| {
                let (last_sender_report, at) = video.last_report.unwrap_or((0, now));
                let delay = u32::try_from((now - at).as_micros() * 65_536 / 1_000_000).unwrap();
                ReceptionReport { ssrc: video.ssrc, last_sender_report, delay, ..Default::default() }
            };
            let reports = self.videos.iter_mut().map(report).collect();
            out.push(self.peer.protect_rtcp(&[Box::new(rtcp::receiver_report(1, reports))]));
            if self.talks {
                self.talker.say(now);
            }
        }
        out.extend(self.talker.output(now));
        let changes = now >= self.next[3];
        if changes {
            self.next[3] += Duration::from_millis(self.random.random_range(800..4000));
            let Self { random, videos, .. } = self;
            for video in videos {
                let max_layer = [None, Some(0), Some(1), Some(2)][random.random_range(0..4)];
                let max_frame_rate = [None, Some(15), Some(7)][random.random_range(0..3)];
                let paused = random.random_range(0..8) == 0;
                video.delivery = Delivery { paused, max_layer, max_frame_rate, ..Delivery::default() };
            }
        }
        (out, changes && !self.steady)
    }

    /// Takes a datagram; datagrams in answer.
    pub(super) fn receive(&mut self, now: Instant, datagram: Vec<u8>) -> Vec<Vec<u8>> {
        match self.peer.open(datagram) {
            Datagram::Sctp(datagram) => {
                self.talker.take(now, &datagram);
                return self.talker.output(now);
            }
            Datagram::Rtp(packet) => self.hear(now, &packet),
            Datagram::Rtcp(compound) => {
                rtcp::read(&compound, |said| {
                    let Said::Clocks { ssrc, ntp, .. } = said else { return };
                    for video in self.videos.iter_mut().filter(|video| video.ssrc == ssrc) {
                        video.last_report = Some((u32::try_from(ntp >> 16 & 0xffff_ffff).unwrap(), now));
                    }
                })
                .unwrap();
            }
            Datagram::Other => {}
        }
        Vec::new()
    }

    fn hear(&mut self, now: Instant, packet: &[u8]) {
        let rtp = RtpPacket::parse(packet).unwrap();
        if let Some([high, low]) = rtp.extensions.element(IDS.transport_cc) {
            let time = Time(u64::try_from((now - self.origin).as_micros()).unwrap());
            self.arrivals.record(time, u16::from_be_bytes([*high, *low]));
        }
        let dependency = rtp.extensions.element(IDS.dependency_descriptor).unwrap_or_default().to_vec();
        let (marker, timestamp) = (rtp.marker, rtp.timestamp);
        let got = |payload: &[u8]| Got { at: now, marker, timestamp, dependency, payload: payload.to_vec() };
        if rtp.ssrc == self.audio_ssrc {
            self.received.push((now, packet.len()));
            return self.audio.take(rtp.sequence, got(rtp.payload), false);
        }
        let video = self.videos.iter_mut().find(|video| (video.ssrc..=video.ssrc + 1).contains(&rtp.ssrc)).unwrap();
        if rtp.ssrc != video.ssrc {
            // Padding alone only probes.
            let Some(([high, low], payload)) = rtp.payload.split_first_chunk::<2>() else { return };
            return video.stream.take(u16::from_be_bytes([*high, *low]), got(payload), true);
        }
        if video.source == CAMERA {
            self.received.push((now, packet.len()));
        }
        video.needs_keyframe |= video.stream.highest.is_none() && !judge::begins(video.source, rtp.payload);
        video.stream.take(rtp.sequence, got(rtp.payload), false);
    }

    /// Asks again for what is missing, and for a keyframe where something stays missing.
    fn ask(&mut self, now: Instant, out: &mut Vec<Vec<u8>>) {
        let Self { videos, peer, retry, steady, .. } = self;
        for video in videos {
            let missing = video.stream.due(now, *retry);
            if !missing.is_empty() {
                let nack: Box<dyn Packet> = Box::new(rtcp::nack(1, video.ssrc, &missing));
                out.push(peer.protect_rtcp(&[nack]));
            }
            if *steady && let Some(keyframe) = judge::whole_keyframe(&video.stream) {
                video.stream.skip_to(keyframe, now);
                video.awaits_keyframe = video.awaits_keyframe.filter(|after| keyframe <= *after);
            }
            video.needs_keyframe |= video.stream.give_up(now);
            // The request may have been lost.
            let again = *steady && video.awaits_keyframe.is_some();
            if (video.needs_keyframe || again) && video.asked_keyframe.is_none_or(|asked| now - asked >= KEYFRAME_RETRY)
            {
                video.asked_keyframe = Some(now);
                video.needs_keyframe = false;
                video.awaits_keyframe = video.stream.highest;
                out.push(peer.protect_rtcp(&[Box::new(rtcp::pli(1, video.ssrc))]));
            }
        }
        self.audio.give_up(now);
    }

    /// Whether a decoder would have taken all of it. Panics where not.
    pub(super) fn judge(&mut self, now: Instant) -> Judgement {
        self.audio.cut(now);
        for video in &mut self.videos {
            video.stream.cut(now);
            video.stream.assert_whole();
            for (sequence, lost) in &video.stream.lost {
                let least = 600 / u32::try_from(self.retry.as_millis()).unwrap();
                assert!(lost.requests >= least, "{sequence} was given up after {} requests", lost.requests);
            }
        }
        let [camera, screen] = &self.videos;
        let mut judgement = Judgement {
            packets: self.videos.iter().map(|video| video.stream.packets.len()).sum(),
            lost: self.videos.iter().map(|video| video.stream.lost.len()).sum(),
            camera: judge::camera(&camera.stream),
            screen: judge::screen(&screen.stream),
            audio: self.audio.packets.len(),
            identity: format!("peer-{}", self.peer.key.0),
            said: self.talker.said,
            heard: std::mem::take(&mut self.talker.heard),
            ..Judgement::default()
        };
        judgement.look_at_numbers(&camera.stream);
        self.audio.assert_in_step();
        judgement
    }
}

impl Judgement {
    /// Picture ids and times of the camera go on, whatever layers go out.
    fn look_at_numbers(&mut self, camera: &Stream) {
        // What is not wanted but had its number kept goes out empty.
        let packets: Vec<(u64, &Got)> = camera.packets.iter().map(|(number, got)| (*number, got)).collect();
        let filled: Vec<_> = packets.into_iter().filter(|(_, got)| !got.payload.is_empty()).collect();
        for pair in filled.windows(2) {
            let [(before_number, before), (number, after)] = pair else { unreachable!() };
            let (was, is) = (Label::read(&before.payload), Label::read(&after.payload));
            self.layers[usize::from(is.layer)] += 1;
            let gap = *number != *before_number + 1;
            let same_frame = picture(before) == picture(after);
            assert_eq!(same_frame, before.timestamp == after.timestamp, "one timestamp a frame, at {number}");
            if same_frame {
                continue;
            }
            let step = picture(after).wrapping_sub(picture(before)) & 0x7fff;
            assert!(step == 1 || gap && step < 0x4000, "picture ids go up: {step} at {number}");
            assert!(after.timestamp.wrapping_sub(before.timestamp).cast_signed() > 0, "time goes on, at {number}");
            if (was.layer, was.start) != (is.layer, is.start) {
                self.switches += 1;
                let begins = is.keyframe && is.first;
                assert!(begins || gap, "a switch begins with a keyframe, at {number}: {was:?} {is:?}");
            }
            if !gap {
                let base = u8::from(is.temporal == 0);
                assert_eq!(after.payload[4], before.payload[4].wrapping_add(base), "TL0PICIDX goes on, at {number}");
                assert!(is.first, "frames begin at their beginning, at {number}");
                assert!(
                    before.marker || is.keyframe,
                    "a frame that was cut off is followed by a keyframe, at {number}"
                );
            }
        }
    }
}

fn picture(got: &Got) -> u16 {
    u16::from_be_bytes([got.payload[2] & 0x7f, got.payload[3]])
}
