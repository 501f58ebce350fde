// Entry of the Worker. A panic unwinds and only fails its own call; should the module abort all the same (stack
// overflow, out of memory), it is instantiated anew, and objects that still point into the old memory are rebuilt.
import { WorkerEntrypoint } from "cloudflare:workers";
import * as exports from "./index.js";

const module = exports.__worker_init_state();

export default class extends WorkerEntrypoint {
  fetch(request) {
    return exports.fetch.call(this, request, this.env, this.ctx);
  }
}

function renewed(Class) {
  return new Proxy(Class, {
    construct(target, args, newTarget) {
      const make = () => Reflect.construct(target, args, newTarget);
      let [object, instance] = [make(), module.instanceId];
      const current = () => {
        if (instance !== module.instanceId) [object, instance] = [make(), module.instanceId];
        return object;
      };
      // Methods run on the wasm-bindgen object itself: its pointer field must be its own.
      return new Proxy(object, {
        get(_, name) {
          const value = Reflect.get(current(), name);
          return typeof value === "function" ? value.bind(current()) : value;
        },
      });
    },
  });
}

