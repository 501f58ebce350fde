// The meeting page: first the form, then the call, then the form again.

import { joinError } from "./errors.js";
import { meeting } from "./meeting.js";
import { prejoin } from "./prejoin.js";
import { requestToken } from "./token.js";

const app = document.getElementById("app");

function start(message) {
  const form = prejoin({ message, join });
  app.replaceChildren(form.element);

  async function join({ name, room, camera, microphone }) {
    try {
      const { url, token } = await requestToken({ room, name });
      const element = await meeting({ url, token, name: room, camera, microphone, ended: start });
      form.close();
      app.replaceChildren(element);
    } catch (error) {
      console.warn(error);
      form.fail(joinError(error));
    }
  }
}

start("");
