// WebSocket clients of the package ws. The command open, with an id, url and protocols,
// makes one; it offers permessage-deflate. See peers.js for the rest.
"use strict";
const WebSocket = require("ws");
const { emit, watch, obey } = require("./peers.js");

obey({
  open(_, { id, url, protocols }) {
    const socket = new WebSocket(url, protocols, { rejectUnauthorized: false, perMessageDeflate: true });
    socket.on("open", () => emit({ id, event: "open", protocol: socket.protocol, extensions: socket.extensions }));
    watch(id, socket);
  },
});
