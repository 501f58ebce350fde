// Everyone's sound. Browsers may want a click before they play it.

import { RoomEvent, Track } from "livekit-client";
import { el } from "./dom.js";

/** @returns {{ element: HTMLElement }} holds the audio elements and, when needed, a button that starts them. */
export function audio(room) {
  const button = el("button", { class: "primary", hidden: true, onclick: () => room.startAudio() }, "Click to hear the others");
  const element = el("div", { class: "audio" }, button);
  const isSound = (track) => track.kind === Track.Kind.Audio;
  room.on(RoomEvent.TrackSubscribed, (track) => isSound(track) && element.append(track.attach()));
  room.on(RoomEvent.TrackUnsubscribed, (track) => isSound(track) && track.detach().forEach((sink) => sink.remove()));
  room.on(RoomEvent.AudioPlaybackStatusChanged, () => (button.hidden = room.canPlaybackAudio));
  return { element };
}
