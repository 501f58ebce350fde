// Data between participants: packets to some, chat, remote calls, streams of bytes.

import { RoomEvent } from "livekit-client";

const TOPIC = "test";
/** The remote method that gives back what it gets. */
const ECHO = "echo";

/** What others send. */
export function listenToData(room, happened) {
  room.on(RoomEvent.ChatMessage, (message, who) => happened("chat", { identity: who?.identity, text: message.message }));
  room.registerByteStreamHandler(TOPIC, async (reader, from) => {
    const parts = await reader.readAll();
    const bytes = new Uint8Array(await new Blob(parts).arrayBuffer());
    happened("bytes", { identity: from.identity, text: `${bytes.length} ${await digest(bytes)}` });
  });
  room.registerRpcMethod(ECHO, async ({ payload, callerIdentity }) => `${callerIdentity}: ${payload}`);
}

export const data = (room) => ({
  /** A data packet to some identities, on a topic. */
  async sendDataTo(text, to, { reliable = true, topic = TOPIC } = {}) {
    await room().localParticipant.publishData(new TextEncoder().encode(text), { reliable, topic, destinationIdentities: to });
  },

  async sendChat(text) {
    await room().localParticipant.sendChatMessage(text);
  },

  /** Calls somebody's `echo`. */
  async callEcho(identity, payload) {
    return room().localParticipant.performRpc({ destinationIdentity: identity, method: ECHO, payload });
  },

  /** Calls a method that nobody has; resolves with the error's code. */
  async callNothing(identity) {
    return room().localParticipant.performRpc({ destinationIdentity: identity, method: "nothing", payload: "" }).then(
      () => null,
      (error) => error.code,
    );
  },

  /** A stream of so many bytes to everyone; resolves with what the others are to report. */
  async sendBytes(length) {
    const bytes = Uint8Array.from({ length }, (_, index) => (index * 31) % 251);
    const writer = await room().localParticipant.streamBytes({ topic: TOPIC, totalSize: length });
    await writer.write(bytes);
    await writer.close();
    return `${length} ${await digest(bytes)}`;
  },
});

async function digest(bytes) {
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return [...hash].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
