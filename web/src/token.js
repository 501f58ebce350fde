// Asks the edge for an access token; this page never holds an API secret.

/**
 * @returns {Promise<{url: string, token: string}>} where to connect and with what.
 * @throws {Error} in words for people.
 */
export async function requestToken({ room, name }) {
  const response = await fetch("/token", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ room_name: room, participant_name: name, participant_identity: identity() }),
  });
  if (response.status === 401 || response.status === 403) {
    throw new Error("This server hands out tokens to its apps only: meetings are not open to everyone here.");
  }
  if (!response.ok) {
    const reason = await response.json().then((body) => body.error ?? body.message ?? body.msg).catch(() => undefined);
    throw new Error(`The server gave no token (${reason ?? response.status}).`);
  }
  const { server_url: url, participant_token: token } = await response.json();
  return { url: url || location.origin.replace(/^http/, "ws"), token };
}

// One identity a tab: after a reload the new participant takes the place of the old one.
function identity() {
  let kept = sessionStorage.getItem("identity");
  if (!kept) {
    kept = `web-${Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
    sessionStorage.setItem("identity", kept);
  }
  return kept;
}
