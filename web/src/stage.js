// Everyone's tiles, in a grid that fits; shared screens get the middle.

import { Track } from "livekit-client";
import { el } from "./dom.js";
import { bestGrid } from "./layout.js";
import { tile } from "./tile.js";

const GAP_PX = 8;
const VIDEO_SOURCES = [Track.Source.ScreenShare, Track.Source.Camera];

/** @returns {{ element: HTMLElement, update(): void, close(): void }} the stage of a room. */
export function stage(room) {
  const tiles = new Map();
  const focus = el("ul", { class: "focus", "aria-label": "Shared screens" });
  const grid = el("ul", { class: "grid", "aria-label": "Participants" });
  const element = el("div", { class: "stage" }, focus, grid);
  const observer = new ResizeObserver(arrange);
  observer.observe(element);

  function update() {
    const wanted = new Map();
    for (const participant of [room.localParticipant, ...room.remoteParticipants.values()]) {
      for (const source of VIDEO_SOURCES) {
        const screen = source === Track.Source.ScreenShare;
        if (!screen || participant.isScreenShareEnabled) wanted.set(`${participant.sid || "me"} ${source}`, [participant, source]);
      }
    }
    for (const [key, entry] of tiles) {
      if (wanted.get(key)?.[0] === entry.participant) continue;
      entry.tile.close();
      tiles.delete(key);
    }
    for (const [key, [participant, source]] of wanted) {
      if (!tiles.has(key)) {
        const made = tile(participant, source);
        tiles.set(key, { participant, tile: made });
        (source === Track.Source.ScreenShare ? focus : grid).append(made.element);
      }
      tiles.get(key).tile.update();
    }
    arrange();
  }

  function arrange() {
    element.classList.toggle("has-focus", focus.childElementCount > 0);
    fit(focus);
    if (focus.childElementCount === 0) fit(grid);
    else grid.style.removeProperty("--tile-width");
  }

  return {
    element,
    update,
    close() {
      observer.disconnect();
      for (const entry of tiles.values()) entry.tile.close();
      tiles.clear();
    },
  };
}

function fit(list) {
  const { width, height } = bestGrid(list.childElementCount, list.clientWidth, list.clientHeight, GAP_PX);
  list.style.setProperty("--tile-width", `${width}px`);
  list.style.setProperty("--tile-height", `${height}px`);
}
