// The call itself: connects, keeps the picture in step with the room, ends.

import { Room, RoomEvent } from "livekit-client";
import { audio } from "./audio.js";
import { chat as makeChat } from "./chat.js";
import { controls as makeControls } from "./controls.js";
import { announce, el } from "./dom.js";
import { deviceError, endReason } from "./errors.js";
import { icon } from "./icons.js";
import { singlePeerConnection } from "./link.js";
import { stage as makeStage } from "./stage.js";

// Whatever changes, the whole picture is brought up to date: it is cheap, and nothing can be missed.
const CHANGES = [
  RoomEvent.ParticipantConnected,
  RoomEvent.ParticipantDisconnected,
  RoomEvent.TrackPublished,
  RoomEvent.TrackUnpublished,
  RoomEvent.TrackSubscribed,
  RoomEvent.TrackUnsubscribed,
  RoomEvent.TrackMuted,
  RoomEvent.TrackUnmuted,
  RoomEvent.LocalTrackPublished,
  RoomEvent.LocalTrackUnpublished,
  RoomEvent.Reconnected,
];

/**
 * Joins a room and shows it.
 * @returns {Promise<HTMLElement>} once connected
 * @throws what livekit-client throws when it cannot connect
 */
export async function meeting({ url, token, name, camera, microphone, ended }) {
  const room = new Room({ adaptiveStream: true, dynacast: true, singlePeerConnection: singlePeerConnection() });
  const stage = makeStage(room);
  const chat = makeChat(room);
  const controls = makeControls({ room, chat, leave: () => room.disconnect(), complain });
  const count = el("span", { class: "count" });
  const banner = el("p", { class: "banner", role: "status", hidden: true });
  const notice = el("p", { class: "notice", role: "alert", hidden: true });
  const element = el(
    "section",
    { class: "meeting" },
    el("header", { class: "top" }, el("h1", {}, name), el("span", { class: "people" }, icon("people"), count)),
    banner,
    notice,
    el("div", { class: "middle" }, stage.element, chat.element),
    audio(room).element,
    controls.element,
  );

  function update() {
    const people = room.remoteParticipants.size + 1;
    count.textContent = people;
    count.setAttribute("aria-label", people === 1 ? "1 participant" : `${people} participants`);
    stage.update();
    controls.update();
  }

  function complain(text) {
    notice.textContent = text;
    notice.hidden = false;
    setTimeout(() => (notice.hidden = true), 8000);
  }

  function reconnecting(text) {
    banner.textContent = text;
    banner.hidden = !text;
  }

  for (const change of CHANGES) room.on(change, update);
  room.on(RoomEvent.ParticipantConnected, (who) => announce(`${who.name || who.identity} joined`));
  room.on(RoomEvent.ParticipantDisconnected, (who) => announce(`${who.name || who.identity} left`));
  room.on(RoomEvent.SignalReconnecting, () => reconnecting("Reconnecting …"));
  room.on(RoomEvent.Reconnecting, () => reconnecting("Reconnecting …"));
  room.on(RoomEvent.Reconnected, () => reconnecting(""));
  await room.connect(url, token);
  room.on(RoomEvent.Disconnected, (reason) => {
    stage.close();
    element.remove();
    ended(endReason(reason));
  });
  addEventListener("pagehide", () => room.disconnect(), { once: true });
  update();
  // A device that fails must not end the call: one can listen without it.
  if (microphone) room.localParticipant.setMicrophoneEnabled(true).catch((error) => complain(deviceError(error)));
  if (camera) room.localParticipant.setCameraEnabled(true).catch((error) => complain(deviceError(error)));
  return element;
}
