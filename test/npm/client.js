// WebSocket clients of the package ws. The command open, with an id, url and protocols,
// makes one; it offers permessage-deflate, unless deflate is false or has options of its
// own for that. See peers.js for the rest.
"use strict";
const WebSocket = require("ws");
const { emit, watch, obey } = require("./peers.js");

obey({
  open(_, { id, url, protocols, deflate = true }) {
    const socket = new WebSocket(url, protocols, { rejectUnauthorized: false, perMessageDeflate: deflate });
    socket.on("open", () => emit({ id, event: "open", protocol: socket.protocol, extensions: socket.extensions }));
    watch(id, socket);
  },
});
