// Drives Chromium for the system tests (driven.mjs); the browser ends with the process.

import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { chromium } from "playwright-core";

import { serve } from "../driven.mjs";

const [executablePath, testPageDirectory] = process.argv.slice(2);
const CALL_LIMIT_MS = 60_000;

const server = await servePages(testPageDirectory);
const testPage = `http://127.0.0.1:${server.address().port}/client.html`;
const browser = await chromium.launch({
  executablePath,
  headless: true,
  args: [
    "--no-sandbox",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--auto-accept-this-tab-capture",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
  ],
});
const pages = new Map();

const methods = {
  /** Opens a page in a context of its own: the test client, or any URL. */
  async open({ page: name, url, width = 1280, height = 800 }) {
    const context = await browser.newContext({ viewport: { width, height }, permissions: ["camera", "microphone"] });
    const page = await context.newPage();
    page.setDefaultTimeout(CALL_LIMIT_MS);
    page.on("console", (message) => {
      if (!["error", "warning"].includes(message.type())) return;
      const source = message.text().startsWith("Failed to load resource") ? ` ${message.location().url}` : "";
      log(name, withoutTokens(message.text() + source));
    });
    page.on("pageerror", (error) => log(name, `uncaught: ${error.message}`));
    pages.set(name, page);
    const response = await page.goto(url ?? testPage, { waitUntil: "load" });
    if (!response.ok()) throw new Error(`${response.url()} answered ${response.status()}`);
    // Not at the next frame, as by default: a page that is not painted has none.
    if (!url) await page.waitForFunction(() => window.client, undefined, { polling: 100 });
  },
  /** Calls a method of window.client. */
  async call({ page, name, args }) {
    return pages.get(page).evaluate(([name, args]) => window.client[name](...args), [name, args]);
  },
  async evaluate({ page, expression }) {
    return pages.get(page).evaluate(expression);
  },
  /** Waits until an expression is true in the page. */
  async until({ page, expression, timeoutMs }) {
    await pages.get(page).waitForFunction(expression, undefined, { timeout: timeoutMs, polling: 100 });
  },
  async click({ page, selector }) {
    await pages.get(page).click(selector);
  },
  async fill({ page, selector, text }) {
    await pages.get(page).fill(selector, text);
  },
  async screenshot({ page, path }) {
    await pages.get(page).screenshot({ path });
  },
  /** Ends the browser as when its machine dies: without a word of any page. */
  async kill() {
    const session = await browser.newBrowserCDPSession();
    // It does not live to answer.
    await session.send("Browser.crash").catch(() => {});
  },
  /** Ends a page as a crash or a closed tab would: without a word. */
  async close({ page }) {
    await pages.get(page).context().close();
    pages.delete(page);
  },
};

serve(methods, { ready: browser.version(), end: () => browser.close() });

/** Chromium names the whole URL of a socket that fails. */
function withoutTokens(text) {
  return text.replace(/access_token=[^&' ]+/g, "access_token=…");
}

function log(page, text) {
  process.stderr.write(`${page} ${text}\n`);
}

function servePages(directory) {
  const types = { html: "text/html", js: "text/javascript", map: "application/json" };
  const server = createServer(async (request, response) => {
    const name = new URL(request.url, "http://localhost").pathname.slice(1);
    if (!/^(client\.html|(client|worker)\.js(\.map)?)$/.test(name)) return response.writeHead(404).end();
    const body = await readFile(join(directory, name));
    response.writeHead(200, { "Content-Type": types[name.split(".").pop()] }).end(body);
  });
  return new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(server)));
}
