// Chat, as text streams over the data channel (topic and form of LiveKit's own components).

import { announce, el } from "./dom.js";
import { icon } from "./icons.js";

const TOPIC = "lk.chat";
const MAX_LENGTH = 2000;

/** @returns {{ element: HTMLElement, toggle(): boolean, onUnread(listener: (count: number) => void): void }} */
export function chat(room) {
  let unread = 0;
  let tell = () => {};
  const messages = el("ol", { class: "messages", tabindex: "0", "aria-label": "Messages" });
  const empty = el("p", { class: "empty" }, "No messages yet. Everyone in the room sees what you write.");
  const input = el("input", { "aria-label": "Message", placeholder: "Write to everyone", maxlength: MAX_LENGTH, autocomplete: "off" });
  const error = el("p", { class: "error", role: "alert" });
  const form = el(
    "form",
    { onsubmit: send },
    input,
    el("button", { type: "submit", class: "round", "aria-label": "Send" }, icon("send")),
  );
  const close = el("button", { class: "round quiet", "aria-label": "Close chat", onclick: () => toggle() }, icon("close"));
  const element = el("aside", { class: "chat", hidden: true, "aria-label": "Chat" }, el("header", {}, el("h2", {}, "Chat"), close), empty, messages, error, form);

  room.registerTextStreamHandler(TOPIC, async (reader, from) => {
    const text = await reader.readAll();
    const participant = room.getParticipantByIdentity(from.identity);
    show(participant?.name || from.identity, text, false);
    if (!element.hidden) return;
    unread += 1;
    tell(unread);
    announce(`${participant?.name || from.identity} wrote: ${text}`);
  });

  async function send(event) {
    event.preventDefault();
    const text = input.value.trim();
    if (!text) return;
    input.value = "";
    error.textContent = "";
    try {
      await room.localParticipant.sendText(text, { topic: TOPIC });
      show("You", text, true);
    } catch (cause) {
      input.value = text;
      error.textContent = `Not sent: ${cause.message}`;
    }
  }

  function show(author, text, own) {
    empty.hidden = true;
    const time = new Date().toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
    const line = el("li", { class: own ? "own" : "" }, el("div", { class: "author" }, author, " ", el("time", {}, time)), el("p", {}, text));
    messages.append(line);
    line.scrollIntoView({ block: "end" });
  }

  function toggle() {
    element.hidden = !element.hidden;
    if (!element.hidden) {
      unread = 0;
      tell(0);
      input.focus();
    }
    element.dispatchEvent(new Event("toggle"));
    return !element.hidden;
  }

  return { element, toggle, onUnread: (listener) => (tell = listener) };
}
