// What a test drives by lines of JSON: one request a line on stdin, { id, method, … }; one answer a line on stdout,
// { id, ok } or { id, error }.

import { createInterface } from "node:readline";

/** Answers requests with `methods` until stdin closes; then `end` is awaited, and the process ends. `ready`: the first answer. */
export function serve(methods, { ready = null, end = async () => {}, describe = (error) => error.message } = {}) {
  const requests = createInterface({ input: process.stdin });
  requests.on("line", async (line) => {
    const { id, method, ...parameters } = JSON.parse(line);
    try {
      answer({ id, ok: (await methods[method](parameters)) ?? null });
    } catch (error) {
      answer({ id, error: describe(error) });
    }
  });
  requests.on("close", async () => {
    await end();
    process.exit(0);
  });
  answer({ id: 0, ok: ready });
}

function answer(message) {
  process.stdout.write(`${JSON.stringify(message)}\n`);
}
