// Stands in for Workers Assets on bare workerd: files of one directory, by their name.
const TYPES = {
  html: "text/html; charset=utf-8",
  js: "text/javascript; charset=utf-8",
  css: "text/css; charset=utf-8",
  svg: "image/svg+xml",
  png: "image/png",
  json: "application/json",
  map: "application/json",
  webmanifest: "application/manifest+json",
};

export default {
  async fetch(request, env) {
    if (request.method !== "GET" && request.method !== "HEAD") return new Response(null, { status: 405 });
    const url = new URL(request.url);
    const path = url.pathname.endsWith("/") ? `${url.pathname}index.html` : url.pathname;
    const type = TYPES[path.split(".").pop()];
    if (!type) return new Response("not found", { status: 404 });
    const file = await env.FILES.fetch(new URL(path, url), { method: request.method });
    if (!file.ok) return new Response("not found", { status: 404 });
    return new Response(file.body, { headers: { "Content-Type": type, "Cache-Control": "no-cache" } });
  },
};
