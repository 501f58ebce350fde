// LiveKit's server SDK, unmodified, as an app server: one JSON request a line on stdin, one answer a line on stdout.
// { id, method, … } -> { id, ok } or { id, error }. The process ends when stdin closes.

import { deepEqual } from "node:assert/strict";
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { DataPacket_Kind, RoomServiceClient, WebhookReceiver } from "livekit-server-sdk";

const [apiKey, apiSecret] = process.argv.slice(2);
const heard = [];
const waiting = new Set();

const methods = {
  /** Calls a method of `RoomServiceClient`. */
  async call({ url, name, args }) {
    const answer = await new RoomServiceClient(url, apiKey, apiSecret)[name](...args);
    return Array.isArray(answer) ? answer.map((one) => one.toJson()) : answer?.toJson();
  },
  /** `sendData` of a text, reliably. */
  async sendText({ url, room, text, topic, to }) {
    const client = new RoomServiceClient(url, apiKey, apiSecret);
    await client.sendData(room, new TextEncoder().encode(text), DataPacket_Kind.RELIABLE, { topic, destinationIdentities: to });
  },
  /** Takes webhooks; returns the port. */
  async listen({ port }) {
    const receiver = new WebhookReceiver(apiKey, apiSecret);
    const server = createServer(async (request, response) => {
      try {
        const chunks = await request.toArray();
        const event = await receiver.receive(Buffer.concat(chunks).toString(), request.headers.authorization);
        if (request.headers["content-type"] !== "application/webhook+json") throw new Error("content type");
        const before = heard.find(({ id }) => id === event.id);
        // It may come again if the edge was killed before it had written that it arrived.
        if (before) deepEqual(event.toJson(), before);
        else heard.push(event.toJson());
        response.writeHead(200).end();
      } catch (error) {
        process.stderr.write(`app server: ${error}\n`);
        response.writeHead(401).end();
      }
      for (const look of waiting) look();
    });
    await new Promise((resolve, reject) => server.listen(port, "127.0.0.1", resolve).on("error", reject));
    return server.address().port;
  },
  /** Every event heard, once each, once there are so many. */
  async heard({ count }) {
    if (heard.length >= count) return heard;
    return new Promise((resolve) => {
      const look = () => heard.length >= count && waiting.delete(look) && resolve(heard);
      waiting.add(look);
    });
  },
};

const requests = createInterface({ input: process.stdin });
requests.on("line", async (line) => {
  const { id, method, ...parameters } = JSON.parse(line);
  try {
    answer({ id, ok: (await methods[method](parameters)) ?? null });
  } catch (error) {
    answer({ id, error: [error.name, error.status, error.code, error.message].join(" ") });
  }
});
requests.on("close", () => process.exit(0));
answer({ id: 0, ok: null });

function answer(message) {
  process.stdout.write(`${JSON.stringify(message)}\n`);
}
