// What client.js and server.js share. Commands are lines of JSON on stdin, events are
// lines of JSON on stdout, and each names the WebSocket that it is about by an id. Binary
// data is base64. The process ends when stdin does.
"use strict";
const readline = require("node:readline");

const sockets = new Map();

function emit(event) {
  process.stdout.write(JSON.stringify(event) + "\n");
}

// watch reports all that happens to a WebSocket.
function watch(id, socket) {
  sockets.set(id, socket);
  socket.on("message", (data, isBinary) => emit({ id, event: isBinary ? "binary" : "text", data: data.toString("base64") }));
  socket.on("ping", (data) => emit({ id, event: "ping", data: data.toString("base64") }));
  socket.on("pong", (data) => emit({ id, event: "pong", data: data.toString("base64") }));
  socket.on("error", (error) => emit({ id, event: "error", reason: error.message }));
  socket.on("close", (code, reason) => {
    sockets.delete(id);
    emit({ id, event: "close", code, reason: reason.toString() });
  });
}

const commands = {
  // parts become the frames of one message.
  send(socket, { kind, parts }) {
    parts.forEach((part, i) => socket.send(Buffer.from(part, "base64"), { binary: kind === "binary", fin: i === parts.length - 1 }));
  },
  ping: (socket, { data }) => socket.ping(Buffer.from(data, "base64")),
  close: (socket, { code, reason }) => (code === 1005 ? socket.close() : socket.close(code, reason)),
  terminate: (socket) => socket.terminate(),
};

function obey(more) {
  const known = { ...commands, ...more };
  readline.createInterface({ input: process.stdin }).on("line", (line) => {
    const command = JSON.parse(line);
    const socket = sockets.get(command.id);
    if (socket || more[command.command]) known[command.command](socket, command);
  }).on("close", () => process.exit(0));
}

module.exports = { emit, watch, obey };
