// A LiveKit client that a test drives: window.client, one call or question a method. Everything it hears is in `events`.

import { Room, RoomEvent, Track, VideoQuality } from "livekit-client";

import { data, listenToData } from "./data.js";
import { encryption, listenToMedia, media, refuseCodec } from "./media.js";

const TOPIC = "test";
const POLL_MS = 50;
/** Growth of totalAudioEnergy that is sound, not the decoder's comfort noise. */
const SOUND = 1e-6;

let room;
/** What happened, in order: { event, … } */
const events = [];
const waiting = new Set();
/** Whose picture is watched: identity -> { last, still }, ms. */
const watched = new Map();

function happened(event, detail = {}) {
  events.push({ event, at: performance.now(), ...detail });
  for (const check of waiting) check();
}

const matches = (entry, wanted) => Object.entries(wanted).every(([key, value]) => entry[key] === value);

const named = (publication, participant) => ({
  identity: participant.identity,
  source: publication.source,
  kind: publication.kind,
  trackSid: publication.trackSid,
});

window.client = {
  ...media(() => room),
  ...data(() => room),

  /** Connects; resolves when the room is joined. */
  async join(url, token, { singlePeerConnection = true, autoSubscribe = true, passphrase, without, ...options } = {}) {
    happened("joining");
    // A busy machine shall drop frames, not lines: tests tell layers apart by them.
    const publishDefaults = { degradationPreference: "maintain-resolution" };
    if (without) refuseCodec(without);
    if (passphrase) options.encryption = await encryption(passphrase);
    room = new Room({ singlePeerConnection, dynacast: true, adaptiveStream: false, publishDefaults, ...options });
    if (passphrase) await room.setE2EEEnabled(true);
    listenToMedia(room, happened);
    listenToData(room, happened);
    room
      .on(RoomEvent.ParticipantConnected, (who) => happened("participantConnected", { identity: who.identity }))
      .on(RoomEvent.ParticipantDisconnected, (who) => happened("participantDisconnected", { identity: who.identity }))
      .on(RoomEvent.ParticipantActive, (who) => happened("participantActive", { identity: who.identity }))
      .on(RoomEvent.TrackSubscribed, (track, publication, who) => {
        document.getElementById("media").append(track.attach());
        happened("trackSubscribed", named(publication, who));
        if (track.kind === Track.Kind.Video) {
          watchFirstFrame(track, who, publication);
          watchFrames(track, who);
        }
      })
      .on(RoomEvent.TrackUnsubscribed, (track, publication, who) => {
        track.detach().forEach((element) => element.remove());
        happened("trackUnsubscribed", named(publication, who));
      })
      .on(RoomEvent.TrackPublished, (publication, who) => happened("trackPublished", named(publication, who)))
      .on(RoomEvent.TrackUnpublished, (publication, who) => happened("trackUnpublished", named(publication, who)))
      .on(RoomEvent.TrackMuted, (publication, who) => happened("trackMuted", named(publication, who)))
      .on(RoomEvent.TrackUnmuted, (publication, who) => happened("trackUnmuted", named(publication, who)))
      .on(RoomEvent.TrackSubscriptionFailed, (trackSid, who) => happened("subscriptionFailed", { trackSid, identity: who.identity }))
      .on(RoomEvent.ParticipantPermissionsChanged, (before, who) => happened("permissionsChanged", { identity: who.identity }))
      .on(RoomEvent.ParticipantNameChanged, (text, who) => happened("nameChanged", { identity: who.identity, text }))
      .on(RoomEvent.ParticipantMetadataChanged, (before, who) =>
        happened("metadataChanged", { identity: who.identity, text: who.metadata }),
      )
      .on(RoomEvent.ParticipantAttributesChanged, (changed, who) =>
        happened("attributesChanged", { identity: who.identity, text: JSON.stringify(changed) }),
      )
      .on(RoomEvent.RoomMetadataChanged, (text) => happened("roomMetadataChanged", { text }))
      .on(RoomEvent.RecordingStatusChanged, (on) => happened("recordingChanged", { text: String(on) }))
      .on(RoomEvent.TrackSubscriptionPermissionChanged, (publication, status, who) =>
        happened("subscriptionPermissionChanged", { identity: who.identity, trackSid: publication.trackSid, text: status }),
      )
      .on(RoomEvent.LocalTrackSubscribed, (publication) => happened("localTrackSubscribed", { trackSid: publication.trackSid, text: publication.source }))
      .on(RoomEvent.LocalTrackPublished, (publication) => happened("localTrackPublished", { trackSid: publication.trackSid }))
      .on(RoomEvent.LocalTrackUnpublished, (publication) => happened("localTrackUnpublished", { trackSid: publication.trackSid }))
      .on(RoomEvent.Reconnecting, () => happened("reconnecting"))
      .on(RoomEvent.SignalReconnecting, () => happened("signalReconnecting"))
      .on(RoomEvent.Reconnected, () => happened("reconnected"))
      .on(RoomEvent.Moved, (text) => happened("moved", { text }))
      .on(RoomEvent.Disconnected, (reason) => happened("disconnected", { reason }))
      .on(RoomEvent.DataReceived, (payload, who, kind, topic) =>
        happened("data", { identity: who?.identity, topic, text: new TextDecoder().decode(payload) }),
      );
    room.registerTextStreamHandler(TOPIC, async (reader, from) =>
      happened("text", { identity: from.identity, text: await reader.readAll() }),
    );
    await room.connect(url, token, { autoSubscribe });
    happened("joined");
    return { identity: room.localParticipant.identity, sid: room.localParticipant.sid, others: [...room.remoteParticipants.keys()] };
  },

  /** Publishes the (fake) camera, simulcast on, and microphone. */
  async publish() {
    await room.localParticipant.enableCameraAndMicrophone();
    return [...room.localParticipant.trackPublications.values()].map((publication) => publication.trackSid);
  },

  /** Publishes the camera alone, as one scalable stream of a codec. */
  async publishCamera(videoCodec, scalabilityMode) {
    const options = { videoCodec, scalabilityMode, backupCodec: false };
    await room.localParticipant.setCameraEnabled(true, undefined, options);
  },

  async setMicrophone(on) {
    await room.localParticipant.setMicrophoneEnabled(on);
  },

  async setCamera(on) {
    await room.localParticipant.setCameraEnabled(on);
  },

  /** Takes the own track of a source out of the room. */
  async unpublish(source) {
    await room.localParticipant.unpublishTrack(room.localParticipant.getTrackPublication(source).track);
  },

  /** Calls a method of the SDK's local participant; what it throws is the call's error. */
  async local(method, ...args) {
    await room.localParticipant[method](...args);
  },

  /** The local participant, as the SDK has it. */
  myself() {
    const { identity, sid, name, metadata, attributes, permissions, trackPublications } = room.localParticipant;
    const tracks = [...trackPublications.values()].map((one) => ({ sid: one.trackSid, source: one.source, muted: one.isMuted }));
    return { identity, sid, name, metadata, attributes, permissions: { ...permissions }, tracks, state: room.state, roomMetadata: room.metadata, inRoom: room.numParticipants };
  },

  /** Subscribes to all of somebody's tracks or that of a source, or no longer. */
  subscribe(identity, on, source) {
    for (const publication of room.remoteParticipants.get(identity).trackPublications.values()) {
      if (!source || publication.source === source) publication.setSubscribed(on);
    }
  },

  /** Receives somebody's camera, or not for now: the subscription stays. */
  setEnabled(identity, on) {
    room.remoteParticipants.get(identity).getTrackPublication(Track.Source.Camera).setEnabled(on);
  },

  /** One of the SDK's scenarios. */
  async simulate(scenario) {
    await room.simulateScenario(scenario);
  },

  /** What to receive of somebody's camera: "low", "medium" or "high". */
  setQuality(identity, quality) {
    const publication = room.remoteParticipants.get(identity).getTrackPublication(Track.Source.Camera);
    publication.setVideoQuality({ low: VideoQuality.LOW, medium: VideoQuality.MEDIUM, high: VideoQuality.HIGH }[quality]);
  },

  /** How many frames of somebody's camera are wanted in a second. */
  setFrameRate(identity, fps) {
    room.remoteParticipants.get(identity).getTrackPublication(Track.Source.Camera).setVideoFPS(fps);
  },

  /** Waits until somebody's camera arrives with a height between these and frames go on. */
  async waitForHeight(identity, least, most, { timeoutMs }) {
    const deadline = performance.now() + timeoutMs;
    const camera = async () => (await this.stats()).tracks.find((one) => one.identity === identity && one.kind === "video");
    for (let before = await camera(); ; before = await camera()) {
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
      const now = await camera();
      if (now?.frameHeight >= least && now.frameHeight <= most && now.framesDecoded > before?.framesDecoded) return now;
      if (performance.now() > deadline) throw new Error(`no ${least} to ${most} lines of ${identity} in ${timeoutMs} ms: ${JSON.stringify(now)}`);
    }
  },

  /** A data packet to everyone, or to some identities. */
  async sendData(text, { reliable = true, to } = {}) {
    await room.localParticipant.publishData(new TextEncoder().encode(text), { reliable, topic: TOPIC, destinationIdentities: to });
  },

  /** A text stream to everyone. */
  async sendText(text) {
    await room.localParticipant.sendText(text, { topic: TOPIC });
  },

  /** Per subscribed track: what arrived, was decoded and heard; and the transports' ciphers and paths. */
  async stats() {
    const tracks = [];
    const ciphers = new Set();
    const paths = new Set();
    for (const participant of room.remoteParticipants.values()) {
      for (const publication of participant.trackPublications.values()) {
        const report = await publication.track?.getRTCStatsReport();
        for (const stat of report?.values() ?? []) {
          if (stat.type === "transport" && stat.srtpCipher) ciphers.add(stat.srtpCipher);
          if (stat.type === "transport" && stat.selectedCandidatePairId) {
            const { candidateType, relayProtocol } = report.get(report.get(stat.selectedCandidatePairId).localCandidateId);
            paths.add([candidateType, relayProtocol].filter(Boolean).join(" "));
          }
          if (stat.type !== "inbound-rtp") continue;
          tracks.push({
            identity: participant.identity,
            kind: stat.kind,
            packetsReceived: stat.packetsReceived,
            packetsLost: stat.packetsLost,
            framesDecoded: stat.framesDecoded ?? 0,
            frameHeight: stat.frameHeight ?? 0,
            mimeType: report.get(stat.codecId)?.mimeType ?? "",
            totalAudioEnergy: stat.totalAudioEnergy ?? 0,
            freezeCount: stat.freezeCount ?? 0,
            totalFreezesDuration: stat.totalFreezesDuration ?? 0,
            bytesReceived: stat.bytesReceived ?? 0,
          });
        }
      }
    }
    return { tracks, ciphers: [...ciphers], paths: [...paths] };
  },

  /** What the room looks like from here. */
  picture() {
    return [...room.remoteParticipants.values()].map((participant) => ({
      identity: participant.identity,
      sid: participant.sid,
      isAgent: participant.isAgent,
      tracks: [...participant.trackPublications.values()].map((publication) => ({
        sid: publication.trackSid,
        source: publication.source,
        muted: publication.isMuted,
        subscribed: publication.isSubscribed,
      })),
    }));
  },

  /** The first event from index `since` on that has all of these values; waits for it. */
  waitFor(wanted, { since = 0, timeoutMs }) {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        waiting.delete(check);
        reject(new Error(`no ${JSON.stringify(wanted)} in ${timeoutMs} ms; heard ${JSON.stringify(events)}`));
      }, timeoutMs);
      function check() {
        const index = events.findIndex((entry, index) => index >= since && matches(entry, wanted));
        if (index < 0) return;
        clearTimeout(timer);
        waiting.delete(check);
        resolve({ index, ...events[index] });
      }
      waiting.add(check);
      check();
    });
  },

  /** All events from index `since` on. */
  heard(since) {
    return events.slice(since).map((entry, index) => ({ index: since + index, ...entry }));
  },

  /** Longest time since the last call that somebody's picture stood still, ms. */
  stillness(identity) {
    const picture = watched.get(identity);
    const longest = Math.max(picture.still, performance.now() - picture.last);
    picture.still = 0;
    return longest;
  },

  /** How many events there were: a `since` for later. */
  mark() {
    return events.length;
  },

  /** Waits until every kind of `identity`'s media has progressed since this call: frames decoded, audio energy. */
  async waitForMedia(identity, { kinds, timeoutMs }) {
    const progress = ({ tracks }, kind) => {
      const track = tracks.find((one) => one.identity === identity && one.kind === kind);
      return kind === "video" ? track?.framesDecoded : track?.totalAudioEnergy;
    };
    const first = await this.stats();
    const least = { audio: SOUND, video: 0 };
    const before = Object.fromEntries(kinds.map((kind) => [kind, progress(first, kind) ?? 0]));
    const grown = Object.fromEntries(kinds.map((kind) => [kind, 0]));
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      const now = await this.stats();
      for (const kind of kinds) {
        const count = progress(now, kind);
        if (count === undefined) continue;
        // What another node sends may be counted from zero again.
        grown[kind] += count < before[kind] ? count : count - before[kind];
        before[kind] = count;
      }
      if (kinds.every((kind) => grown[kind] > least[kind])) return now;
      if (performance.now() > deadline) throw new Error(`no ${kinds} of ${identity} in ${timeoutMs} ms: ${JSON.stringify(now)}`);
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  },

  async leave() {
    await room.disconnect();
  },
};

/** Notes how long the picture stands still, between two frames that are shown. */
function watchFrames(track, participant) {
  const element = track.attachedElements[0];
  const picture = { last: performance.now(), still: 0 };
  watched.set(participant.identity, picture);
  const frame = (now) => {
    picture.still = Math.max(picture.still, now - picture.last);
    picture.last = now;
    if (element.isConnected) element.requestVideoFrameCallback(frame);
  };
  element.requestVideoFrameCallback(frame);
}

function watchFirstFrame(track, participant, publication) {
  const element = track.attachedElements[0];
  element.muted = true;
  element.requestVideoFrameCallback(() => happened("firstFrame", named(publication, participant)));
}
