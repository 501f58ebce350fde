// The bar at the bottom: mute, camera, screen, chat, link, leave.

import { announce, el } from "./dom.js";
import { deviceError } from "./errors.js";
import { icon } from "./icons.js";

/** @returns {{ element: HTMLElement, update(): void }} the controls of a room. */
export function controls({ room, chat, leave, complain }) {
  const me = room.localParticipant;
  const microphone = control("mic", "Mic", "Microphone", () => device(microphone, () => me.setMicrophoneEnabled(!me.isMicrophoneEnabled)));
  const camera = control("camera", "Camera", "Camera", () => device(camera, () => me.setCameraEnabled(!me.isCameraEnabled)));
  const screen = control("screen", "Share", "Share your screen", () => device(screen, () => me.setScreenShareEnabled(!me.isScreenShareEnabled)));
  const talk = control("chat", "Chat", "Chat", () => chat.toggle());
  const share = control("link", "Link", "Copy the room’s link", copyLink);
  const end = control("leave", "Leave", "Leave the call", leave);
  end.button.classList.add("danger");
  screen.button.hidden = !navigator.mediaDevices?.getDisplayMedia;
  const badge = el("span", { class: "badge", hidden: true });
  talk.button.append(badge);
  chat.onUnread((count) => {
    badge.hidden = count === 0;
    badge.textContent = count;
  });
  chat.element.addEventListener("toggle", update);
  const bar = [microphone, camera, screen, talk, share, end].map(({ button }) => button);
  const element = el("nav", { class: "controls", "aria-label": "Call controls" }, ...bar);

  function update() {
    microphone.set(me.isMicrophoneEnabled, "micOff");
    camera.set(me.isCameraEnabled, "cameraOff");
    screen.set(me.isScreenShareEnabled);
    talk.set(!chat.element.hidden);
  }

  async function device(which, change) {
    which.button.disabled = true;
    try {
      await change();
    } catch (error) {
      // Closing the browser's screen chooser is an answer, not a failure.
      if (which !== screen || error.name !== "NotAllowedError") complain(deviceError(error));
    } finally {
      which.button.disabled = false;
      update();
    }
  }

  async function copyLink() {
    try {
      await navigator.clipboard.writeText(location.href);
      share.label("Copied");
      announce("Link copied");
      setTimeout(() => share.label("Link"), 2000);
    } catch {
      complain(`Copy this link: ${location.href}`);
    }
  }

  update();
  return { element, update };
}

function control(iconName, text, name, act) {
  const caption = el("span", { class: "label" }, text);
  const button = el("button", { type: "button", class: "control", "data-control": iconName, "aria-label": name, title: name, onclick: act }, icon(iconName), caption);
  return {
    button,
    label: (changed) => (caption.textContent = changed),
    set(on, offIcon) {
      button.setAttribute("aria-pressed", on);
      button.classList.toggle("off", Boolean(offIcon) && !on);
      if (offIcon) button.querySelector(".icon").replaceWith(icon(on ? iconName : offIcon));
    },
  };
}
