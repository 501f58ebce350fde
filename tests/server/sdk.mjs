// LiveKit's server SDK, unmodified, as an app server that a test drives (driven.mjs).

import { deepEqual } from "node:assert/strict";
import { createServer } from "node:http";
import { AgentDispatchClient, DataPacket_Kind, RoomServiceClient, WebhookReceiver } from "livekit-server-sdk";

import { serve } from "../driven.mjs";

const [apiKey, apiSecret] = process.argv.slice(2);
const clients = { AgentDispatchClient, RoomServiceClient };
const heard = [];
const waiting = new Set();

const methods = {
  /** Calls a method of one of the SDK's clients. */
  async call({ client, url, name, args }) {
    const answer = await new clients[client](url, apiKey, apiSecret)[name](...args);
    return Array.isArray(answer) ? answer.map((one) => one.toJson()) : answer?.toJson();
  },
  /** `sendData` of a text, reliably, to identities or sids. */
  async sendText({ url, room, text, topic, to, sids }) {
    const client = new RoomServiceClient(url, apiKey, apiSecret);
    const options = { topic, destinationIdentities: to, destinationSids: sids };
    await client.sendData(room, new TextEncoder().encode(text), DataPacket_Kind.RELIABLE, options);
  },
  /** `removeParticipant`, with its tokens of before a time (seconds since the epoch). */
  async removeWithTokens({ url, room, identity, before }) {
    const client = new RoomServiceClient(url, apiKey, apiSecret);
    await client.removeParticipant(room, identity, { revokeTokenTs: BigInt(before) });
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

serve(methods, { describe: (error) => [error.name, error.status, error.code, error.message].join(" ") });
