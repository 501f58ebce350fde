// Media that a test publishes, shows and looks at: a tone, a shared screen, the size a picture is shown at, what is sent.

import { ConnectionQuality, ExternalE2EEKeyProvider, LocalAudioTrack, RoomEvent, Track } from "livekit-client";

const POLL_MS = 20;
/** Over this time a layer that is sent has frames, and one that is not has none, ms. */
const WINDOW_MS = 1500;

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Who speaks, how well media gets through, what the node pauses. */
export function listenToMedia(room, happened) {
  const level = (who) => `${who.identity} ${who.audioLevel}`;
  room
    .on(RoomEvent.ActiveSpeakersChanged, (speakers) => happened("activeSpeakers", { text: speakers.map((who) => who.identity).join(), levels: speakers.map(level).join() }))
    .on(RoomEvent.ConnectionQualityChanged, (quality, who) => happened("connectionQuality", { identity: who.identity, text: quality ?? ConnectionQuality.Unknown }))
    .on(RoomEvent.TrackStreamStateChanged, (publication, state, who) => happened("streamState", { identity: who.identity, trackSid: publication.trackSid, text: state }));
}

/** This page's peer connections take no video of a codec. */
export function refuseCodec(name) {
  const { prototype } = RTCPeerConnection;
  const others = RTCRtpReceiver.getCapabilities("video").codecs.filter((codec) => codec.mimeType.toLowerCase() !== `video/${name}`);
  for (const method of ["createOffer", "createAnswer"]) {
    const original = prototype[method];
    prototype[method] = function (...args) {
      const receiving = this.getTransceivers().filter(({ sender, receiver }) => receiver.track.kind === "video" && !sender.track);
      receiving.forEach((transceiver) => transceiver.setCodecPreferences(others));
      return original.apply(this, args);
    };
  }
}

/** The SDK's end-to-end encryption, with a key that all share. */
export async function encryption(passphrase) {
  const keyProvider = new ExternalE2EEKeyProvider();
  await keyProvider.setKey(passphrase);
  return { keyProvider, worker: new Worker(new URL("worker.js", location.href), { type: "module" }) };
}

export const media = (room) => {
  let tone;
  const remote = (identity, source = Track.Source.Camera) => room().remoteParticipants.get(identity)?.getTrackPublication(source);
  const element = (identity) => remote(identity).track.attachedElements[0];
  const decoded = async (identity) => {
    const report = await remote(identity).track.getRTCStatsReport();
    return [...report.values()].find((stat) => stat.type === "inbound-rtp")?.framesDecoded ?? 0;
  };
  /** By layer (lowest first): frames sent of the own camera. */
  const framesSent = async () => {
    const frames = {};
    const { track } = room().localParticipant.getTrackPublication(Track.Source.Camera);
    const senders = [track.sender, ...[...track.simulcastCodecs.values()].map((backup) => backup.sender)];
    for (const sender of senders.filter(Boolean)) {
      const report = await sender.getStats();
      for (const stat of report.values()) {
        if (stat.type !== "outbound-rtp") continue;
        const codec = report.get(stat.codecId)?.mimeType?.replace("video/", "").toLowerCase() ?? "";
        frames[`${codec} ${stat.rid ?? ""}`.trim()] = stat.framesSent ?? 0;
      }
    }
    return frames;
  };

  return {
    /** Waits until somebody's pictures are held back this long between arriving and being shown, ms on average. */
    async waitForDelay(identity, least, most, timeoutMs) {
      const deadline = performance.now() + timeoutMs;
      const held = async () => {
        const report = await remote(identity).track.getRTCStatsReport();
        return [...report.values()].find((stat) => stat.type === "inbound-rtp");
      };
      for (let before = await held(); ; ) {
        await sleep(WINDOW_MS);
        const now = await held();
        const frames = now.jitterBufferEmittedCount - before.jitterBufferEmittedCount;
        if (!(frames > 0)) continue;
        const delay = (1000 * (now.jitterBufferDelay - before.jitterBufferDelay)) / frames;
        if (delay >= least && delay <= most) return delay;
        if (performance.now() > deadline) throw new Error(`held back ${delay} ms, not ${least} to ${most}`);
        before = now;
      }
    },

    /** By source, the stream in which somebody's tracks are. */
    streams(identity) {
      const publications = [...room().remoteParticipants.get(identity).trackPublications.values()];
      return Object.fromEntries(publications.map(({ source, track }) => [source, track?.mediaStream?.id]));
    },

    /** Publishes a steady tone as the microphone; gain 1 is full scale. */
    async publishTone(gain, options = {}) {
      const context = new AudioContext();
      const oscillator = new OscillatorNode(context, { frequency: 440 });
      tone = new GainNode(context, { gain });
      const destination = context.createMediaStreamDestination();
      oscillator.connect(tone).connect(destination);
      oscillator.start();
      await context.resume();
      const track = new LocalAudioTrack(destination.stream.getAudioTracks()[0], undefined, true);
      const publication = await room().localParticipant.publishTrack(track, { source: Track.Source.Microphone, ...options });
      return publication.trackSid;
    },

    setTone(gain) {
      tone.gain.value = gain;
    },

    /** Publishes the camera with options of the SDK. */
    async publishCameraWith(options) {
      await room().localParticipant.setCameraEnabled(true, undefined, options);
    },

    /** Publishes the camera small and as one layer: little to encode and decode. */
    async publishSmallCamera() {
      const resolution = { width: 320, height: 180, frameRate: 30 };
      await room().localParticipant.setCameraEnabled(true, { resolution }, { simulcast: false });
    },

    /** Shares this very tab, with its sound. */
    async shareScreen() {
      await room().localParticipant.setScreenShareEnabled(true, { audio: true, selfBrowserSurface: "include", preferCurrentTab: true });
    },

    /** Shows somebody's camera this large; resolves with the time until it went on, ms. */
    async show(identity, width, height) {
      const { style } = element(identity);
      const before = await decoded(identity);
      const start = performance.now();
      Object.assign(style, { display: "block", width: `${width}px`, height: `${height}px` });
      while ((await decoded(identity)) <= before) {
        if (performance.now() - start > 60_000) throw new Error(`nothing of ${identity} in a minute`);
        await sleep(POLL_MS);
      }
      return performance.now() - start;
    },

    hide(identity) {
      element(identity).style.display = "none";
    },

    /** Waits until nothing of somebody's camera arrives any more. */
    async waitForNothing(identity, timeoutMs) {
      const deadline = performance.now() + timeoutMs;
      for (let before = await decoded(identity); performance.now() < deadline; ) {
        await sleep(WINDOW_MS);
        const now = await decoded(identity);
        if (now === before) return;
        before = now;
      }
      throw new Error(`${identity}'s camera still arrives after ${timeoutMs} ms`);
    },

    /** Waits until somebody's camera arrives with so many frames a second. */
    async waitForFrameRate(identity, least, most, timeoutMs) {
      const deadline = performance.now() + timeoutMs;
      for (let [at, before] = [performance.now(), await decoded(identity)]; ; ) {
        await sleep(WINDOW_MS);
        const [now, frames] = [performance.now(), await decoded(identity)];
        const rate = ((frames - before) * 1000) / (now - at);
        if (rate >= least && rate <= most) return;
        if (now > deadline) throw new Error(`${rate} frames a second of ${identity}`);
        [at, before] = [now, frames];
      }
    },

    /** Waits until these layers of the own camera are sent and no others: "vp8 q", "vp8 h", "vp8 f", "vp9". */
    async waitForLayers(wanted, timeoutMs) {
      const deadline = performance.now() + timeoutMs;
      for (let before = await framesSent(); ; ) {
        await sleep(WINDOW_MS);
        const now = await framesSent();
        const sent = Object.keys(now).filter((layer) => now[layer] > (before[layer] ?? 0));
        if (sent.sort().join() === [...wanted].sort().join()) return;
        if (performance.now() > deadline) throw new Error(`sends ${sent} and not ${wanted}: ${JSON.stringify(now)}`);
        before = now;
      }
    },

    /** LiveKit's description of somebody's track. */
    trackInfo(identity, source) {
      return remote(identity, source)?.trackInfo?.toJson() ?? null;
    },

    /** The SDK decrypts somebody's tracks. */
    isEncrypted(identity) {
      return room().remoteParticipants.get(identity).isEncrypted;
    },

    /** What the last word about somebody's connection was. */
    connectionQuality(identity) {
      const who = identity === room().localParticipant.identity ? room().localParticipant : room().remoteParticipants.get(identity);
      return who.connectionQuality;
    },
  };
};
