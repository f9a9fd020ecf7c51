// What a browser does by itself and Node.js does not: a jar keeps the cookies of a client and
// sends them along. It holds for every request and WebSocket handshake of node:http that is
// made within run, and for what follows from that. There is one host only.
"use strict";
const { AsyncLocalStorage } = require("node:async_hooks");
const http = require("node:http");
const https = require("node:https");

const current = new AsyncLocalStorage();

class Jar {
  // fixed are headers that the client sends besides, as no browser does.
  constructor(fixed = {}) {
    this.fixed = fixed;
    this.cookies = new Map();
  }

  run(f) {
    return current.run(this, f);
  }

  get headers() {
    const cookie = [...this.cookies].map((pair) => pair.join("=")).join("; ");
    return cookie ? { ...this.fixed, cookie } : { ...this.fixed };
  }

  keep(response) {
    for (const line of response.headers["set-cookie"] || []) {
      const [, name, value] = /^([^=]+)=([^;]*)/.exec(line);
      this.cookies.set(name, value);
    }
  }
}

for (const library of [http, https]) {
  const request = library.request;
  library.request = (...args) => {
    const made = request.apply(library, args);
    const jar = current.getStore();
    if (jar) {
      for (const [name, value] of Object.entries(jar.headers)) made.setHeader(name, value);
      made.prependListener("response", (response) => jar.keep(response));
      if (made.getHeader("upgrade")) made.prependListener("upgrade", (response) => jar.keep(response));
    }
    return made;
  };
}

module.exports = { Jar };
