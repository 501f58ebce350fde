// Before the call: name, room, and a look at oneself.

import { createLocalVideoTrack } from "livekit-client";
import { el } from "./dom.js";
import { deviceError } from "./errors.js";
import { icon } from "./icons.js";
import { putRoomInAddress, roomInAddress } from "./link.js";

/**
 * Shows the form and calls `join({ name, room, camera, microphone })` when it is sent.
 * @returns {{ element: HTMLElement, fail(message: string): void, close(): void }}
 */
export function prejoin({ join, message = "" }) {
  let preview = null;
  let cameraOn = true;
  let microphoneOn = true;
  let closed = false;

  const video = el("video", { muted: true, playsinline: true, autoplay: true, "aria-label": "Your camera" });
  const hint = el("p", { class: "preview-hint" }, "Starting the camera …");
  const camera = toggle("camera", "Camera", () => setCamera(!cameraOn));
  const microphone = toggle("mic", "Microphone", () => {
    microphoneOn = !microphoneOn;
    microphone.set(microphoneOn);
  });
  const name = el("input", { id: "name", name: "name", required: true, maxlength: 64, autocomplete: "name", placeholder: "Ada" });
  const room = el("input", { id: "room", name: "room", required: true, maxlength: 128, autocomplete: "off", autocapitalize: "none", spellcheck: "false" });
  const submit = el("button", { type: "submit", class: "primary" }, "Join");
  const error = el("p", { class: "error", role: "alert" }, message);
  name.value = localStorage.getItem("name") ?? "";
  room.value = roomInAddress() || randomRoom();

  const form = el(
    "form",
    { class: "join-form", onsubmit: send },
    el("h1", {}, "Meridian"),
    el("p", { class: "tagline" }, "Choose a room. Everyone with its link can join."),
    el("label", { for: "name" }, "Your name"),
    name,
    el("label", { for: "room" }, "Room"),
    room,
    error,
    submit,
  );
  const element = el(
    "section",
    { class: "prejoin" },
    el("div", { class: "preview" }, video, hint, el("div", { class: "preview-controls" }, microphone.button, camera.button)),
    form,
  );
  setCamera(true);
  queueMicrotask(() => (name.value ? submit : name).focus());

  async function setCamera(on) {
    cameraOn = on;
    camera.set(on);
    preview?.stop();
    preview = null;
    video.hidden = true;
    hint.textContent = on ? "Starting the camera …" : "The camera is off";
    if (!on) return;
    try {
      const track = await createLocalVideoTrack();
      if (closed || !cameraOn || preview) return track.stop();
      preview = track;
      track.attach(video);
      video.hidden = false;
      hint.textContent = "";
    } catch (cause) {
      cameraOn = false;
      camera.set(false);
      hint.textContent = deviceError(cause);
    }
  }

  function send(event) {
    event.preventDefault();
    error.textContent = "";
    submit.disabled = true;
    submit.textContent = "Joining …";
    localStorage.setItem("name", name.value.trim());
    putRoomInAddress(room.value.trim());
    join({ name: name.value.trim(), room: room.value.trim(), camera: cameraOn, microphone: microphoneOn });
  }

  return {
    element,
    fail(text) {
      error.textContent = text;
      submit.disabled = false;
      submit.textContent = "Join";
    },
    close() {
      closed = true;
      preview?.stop();
      element.remove();
    },
  };
}

function toggle(iconName, label, act) {
  const button = el("button", { type: "button", class: "round", "aria-pressed": "true", "aria-label": label, title: label, onclick: act });
  const set = (on) => {
    button.setAttribute("aria-pressed", on);
    button.replaceChildren(icon(on ? iconName : `${iconName}Off`));
  };
  set(true);
  return { button, set };
}

function randomRoom() {
  const letters = "abcdefghjkmnpqrstuvwxyz";
  const pick = Array.from(crypto.getRandomValues(new Uint8Array(9)), (byte) => letters[byte % letters.length]).join("");
  return `${pick.slice(0, 3)}-${pick.slice(3, 6)}-${pick.slice(6)}`;
}
