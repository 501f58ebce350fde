// Errors in words for people.

import { ConnectionError, DisconnectReason } from "livekit-client";

const devices = {
  NotAllowedError: "Your browser does not let this page use the camera or microphone. Allow it next to the address and try again.",
  NotFoundError: "No camera or microphone was found.",
  NotReadableError: "The camera or microphone is in use by another program.",
  OverconstrainedError: "The camera cannot do what was asked of it.",
};

/** @returns {string} why using a camera, microphone or screen failed. */
export function deviceError(error) {
  return devices[error?.name] ?? `The device could not be used (${error?.message ?? error}).`;
}

/** @returns {string} why joining failed. */
export function joinError(error) {
  if (error instanceof ConnectionError) {
    if (error.status === 503) return "No media server is free right now. Try again in a moment.";
    if (error.status === 401 || error.status === 403) return `The server refused this token (${error.message}).`;
    return `The call could not be joined (${error.message}).`;
  }
  if (error instanceof TypeError) return "The server cannot be reached. Check your connection and try again.";
  return error?.message ?? String(error);
}

const reasons = {
  [DisconnectReason.DUPLICATE_IDENTITY]: "You joined from another window; this one has left.",
  [DisconnectReason.PARTICIPANT_REMOVED]: "You were removed from the room.",
  [DisconnectReason.ROOM_DELETED]: "The room was closed.",
  [DisconnectReason.SERVER_SHUTDOWN]: "The server was shut down.",
};

/** @returns {string} why a call ended that the user did not leave; "" after a plain leave. */
export function endReason(reason) {
  if (reason === DisconnectReason.CLIENT_INITIATED) return "";
  return reasons[reason] ?? "The connection was lost.";
}
