// The workflows of the bench for Restate: `node service.mjs PORT`; it says when it is ready. Each step is journalled, and is one request over a
// connection that is kept.

import http from "node:http";
import * as restate from "@restatedev/restate-sdk";

// Its SDK wants it; Node.js has it from version 22 on.
Promise.withResolvers ??= function () {
  const made = {};
  made.promise = new this((resolve, reject) => Object.assign(made, { resolve, reject }));
  return made;
};

const agent = new http.Agent({ keepAlive: true });

function get(url) {
  return new Promise((resolve, reject) => {
    const request = http.get(url, { agent }, (response) => {
      response.resume();
      response.on("end", () => resolve(response.statusCode));
      response.on("error", reject);
    });
    request.on("error", reject);
  });
}

const bench = restate.service({
  name: "bench",
  handlers: {
    steps: async (context, { url, steps }) => {
      for (let step = 1; step <= steps; step++) {
        await context.run(`step ${step}`, () => get(`${url}/step/${step}`));
      }
      return { succeeded: steps };
    },
    echo: async (_context, input) => input,
  },
});

const logger = (meta, message, ...more) => {
  if (meta.level === "warn" || meta.level === "error") {
    console.error(message, ...more);
  }
};
await restate.serve({ services: [bench], port: Number(process.argv[2]), logger });
console.log("ready");
