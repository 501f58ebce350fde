// What the address says: `#room=NAME` names the room, `?mode=dual` asks for two peer connections.

/** @returns {string} the room in the address, or "". */
export function roomInAddress() {
  return new URLSearchParams(location.hash.slice(1)).get("room") ?? "";
}

/** Puts the room in the address, so that it can be shared and reloaded. */
export function putRoomInAddress(room) {
  history.replaceState(null, "", `${location.search}#${new URLSearchParams({ room })}`);
}

/** @returns {boolean} whether to use one peer connection (the default of current clients). */
export function singlePeerConnection() {
  return new URLSearchParams(location.search).get("mode") !== "dual";
}
