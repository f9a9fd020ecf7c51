// WebSocket clients over HTTP/2 (RFC 8441): streams of node:http2, on which the package ws
// speaks WebSocket. All of one host share a connection. The command open, with an id, url and
// protocols, makes one; pause and resume say whether it reads. See peers.js for the rest.
"use strict";
const http2 = require("node:http2");
const WebSocket = require("ws");
const { emit, watch, obey } = require("./peers.js");

const connections = new Map();

function connection(origin) {
  if (!connections.has(origin)) {
    const c = http2.connect(origin, { rejectUnauthorized: false, settings: { enableConnectProtocol: true } });
    c.setMaxListeners(0);
    c.on("error", () => {});
    c.on("goaway", (code) => emit({ id: 0, event: "goaway", code }));
    c.on("close", () => connections.delete(origin));
    connections.set(origin, c);
  }
  return connections.get(origin);
}

// whenReady calls f once the peer's settings are known: a client must not send an extended
// CONNECT before.
function whenReady(c, f) {
  if (c.remoteSettings?.enableConnectProtocol) f();
  else c.once("remoteSettings", f);
}

function open(_, { id, url, protocols }) {
  const target = new URL(url.replace(/^ws/, "http"));
  const socket = new WebSocket(null, undefined, { autoPong: true, closeTimeout: 30_000 });
  socket._isServer = false; // without an address it takes itself for one
  watch(id, socket);
  const c = connection(target.origin);
  whenReady(c, () => {
    const headers = { ":method": "CONNECT", ":protocol": "websocket", ":scheme": "https", ":authority": target.host,
      ":path": target.pathname + target.search, "sec-websocket-version": "13" };
    if (protocols.length > 0) headers["sec-websocket-protocol"] = protocols.join(", ");
    const stream = c.request(headers, { endStream: false });
    stream.on("error", (error) => emit({ id, event: "error", reason: error.message }));
    stream.once("response", (answer) => {
      if (answer[":status"] !== 200) {
        emit({ id, event: "close", code: 1006, reason: `status ${answer[":status"]}` });
        return;
      }
      const protocol = answer["sec-websocket-protocol"] || "";
      socket._protocol = protocol;
      socket.setSocket(stream, Buffer.alloc(0), { maxPayload: 0, skipUTF8Validation: false, allowSynchronousEvents: true });
      socket.cut = () => stream.close(http2.constants.NGHTTP2_CANCEL);
      emit({ id, event: "open", protocol, extensions: "" });
    });
  });
}

obey({
  open,
  pause: (socket) => socket.pause(),
  resume: (socket) => socket.resume(),
  terminate: (socket) => socket && (socket.cut ? socket.cut() : socket.terminate()),
});
