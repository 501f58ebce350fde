// One participant's camera, or one shared screen, with the name under it.

import { ParticipantEvent, Track } from "livekit-client";
import { el } from "./dom.js";
import { icon } from "./icons.js";

/**
 * @param {Participant} participant
 * @param {Track.Source} source camera or screen share
 * @returns {{ element: HTMLElement, update(): void, close(): void }}
 */
export function tile(participant, source) {
  const screen = source === Track.Source.ScreenShare;
  const local = participant.isLocal;
  const video = el("video", { playsinline: true, autoplay: true, muted: true });
  const avatar = el("span", { class: "avatar", "aria-hidden": "true" });
  const mute = el("span", { class: "muted-mark", role: "img", "aria-label": "muted" }, icon("micOff"));
  const name = el("span", { class: "name" });
  const element = el(
    "li",
    { class: "tile", "data-identity": participant.identity, "data-source": source },
    avatar,
    video,
    el("div", { class: "caption" }, screen ? icon("screen") : mute, name),
  );
  element.classList.toggle("screen", screen);
  element.classList.toggle("mirror", local && !screen);
  let shown = null;

  function update() {
    const label = participant.name || participant.identity;
    name.textContent = screen ? `${local ? "Your" : `${label}’s`} screen` : local ? `${label} (you)` : label;
    avatar.textContent = [...label][0]?.toUpperCase() ?? "?";
    avatar.style.setProperty("--hue", hue(participant.identity));
    const publication = participant.getTrackPublication(source);
    const track = publication && !publication.isMuted ? publication.videoTrack : undefined;
    if (track !== shown) {
      shown?.detach(video);
      track?.attach(video);
      shown = track ?? null;
    }
    element.classList.toggle("has-video", Boolean(track));
    element.classList.toggle("muted", !screen && !participant.isMicrophoneEnabled);
    element.classList.toggle("speaking", !screen && participant.isSpeaking);
  }

  participant.on(ParticipantEvent.IsSpeakingChanged, update);
  participant.on(ParticipantEvent.ParticipantNameChanged, update);
  update();
  return {
    element,
    update,
    close() {
      participant.off(ParticipantEvent.IsSpeakingChanged, update);
      participant.off(ParticipantEvent.ParticipantNameChanged, update);
      shown?.detach(video);
      element.remove();
    },
  };
}

// Everyone gets a colour of their own, the same on every screen.
function hue(identity) {
  let hash = 0;
  for (const character of identity) hash = (hash * 31 + character.codePointAt(0)) % 360;
  return hash;
}
