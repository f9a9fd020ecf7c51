// An app server of the package ws on a free port of loopback, which it reports first. It
// accepts permessage-deflate and the subprotocols of its arguments, best first. Each
// WebSocket that is opened gets the next id, from 1. See peers.js for the rest.
"use strict";
const WebSocket = require("ws");
const { emit, watch, obey } = require("./peers.js");

const speaks = process.argv.slice(2);
const server = new WebSocket.Server({
  host: "127.0.0.1",
  port: 0,
  perMessageDeflate: true,
  handleProtocols: (offered) => speaks.find((p) => offered.has(p)) || false,
});
let opened = 0;
server.on("listening", () => emit({ id: 0, event: "listening", port: server.address().port }));
server.on("connection", (socket, request) => {
  const id = ++opened;
  emit({ id, event: "open", protocol: socket.protocol, extensions: request.headers["sec-websocket-extensions"] || "" });
  watch(id, socket);
});
obey({});
