// App servers of the packages socket.io, engine.io and sockjs, on free ports of loopback, one
// for each name of the arguments. They share a process and nothing else: a poll of a session
// of another one is as unknown as on another machine. All of them echo, with their name and
// the transport in front, and they have a stream of numbered events, a poll that nobody
// answers, and a page with their clients. Commands are lines of JSON on stdin: close has a
// server close its sessions, stop ends the server with all its connections.
"use strict";
const fs = require("node:fs");
const http = require("node:http");
const path = require("node:path");
const { Server: SocketIO } = require("socket.io");
const engineIO = require("engine.io");
const { emit, obey } = require("./peers.js");

const servers = new Map();

// freshSockJS returns the package anew: it keeps the sessions of all its servers in one place.
function freshSockJS() {
  for (const file of Object.keys(require.cache)) {
    if (file.includes("/node_modules/sockjs/")) delete require.cache[file];
  }
  return require("sockjs");
}

function startServer(name) {
  const connections = new Set();
  const server = http.createServer((request, response) => answer(name, request, response));
  server.on("connection", (connection) => {
    connections.add(connection);
    connection.on("close", () => connections.delete(connection));
  });
  const unknown = (error) => emit({ event: "refused", backend: name, text: error.message });

  // A poll by JSONP hears of nothing but its answer, for which a heartbeat will do.
  const sockjs = freshSockJS().createServer({ prefix: "/sockjs", sockjs_url: "/sockjs.min.js", heartbeat_delay: 2000, log() {} });
  const sockets = new Set();
  sockjs.on("connection", (socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
    socket.write(`${name} ${socket.protocol} hello`);
    socket.on("data", (text) => socket.write(`${name} ${socket.protocol} ${text}`));
  });
  sockjs.installHandlers(server);

  const io = new SocketIO(server, { destroyUpgrade: false, cors: { origin: true, credentials: true } });
  io.engine.on("connection_error", unknown);
  io.on("connection", (socket) => {
    socket.emit("said", `${name} ${socket.conn.transport.name} hello`);
    socket.on("say", (text) => socket.emit("said", `${name} ${socket.conn.transport.name} ${text}`));
  });

  const engine = engineIO.attach(server, { path: "/engine.io", destroyUpgrade: false });
  engine.on("connection_error", unknown);
  engine.on("connection", (socket) => {
    socket.send(`${name} ${socket.transport.name} hello`);
    socket.on("message", (text) => socket.send(`${name} ${socket.transport.name} ${text}`));
  });

  const close = () => {
    for (const { clients } of [io.engine, engine]) Object.values(clients).forEach((client) => client.close());
    sockets.forEach((socket) => socket.close(3000, "closed by the application"));
  };
  const stop = () => {
    server.close();
    connections.forEach((connection) => connection.destroy());
    emit({ event: "stopped", backend: name });
  };
  servers.set(name, { close, stop });
  server.listen(0, "127.0.0.1", () => emit({ event: "listening", backend: name, port: server.address().port }));
}

function answer(name, request, response) {
  const { pathname, searchParams } = new URL(request.url, "http://localhost");
  switch (pathname) {
    case "/events":
      return events(name, request, response, Number(searchParams.get("every")));
    case "/poll":
      emit({ event: "polled", backend: name });
      return response.on("close", () => emit({ event: "aborted", backend: name }));
    case "/":
      response.setHeader("Content-Type", "text/html");
      return response.end(fs.readFileSync(path.join(__dirname, "realtime.html")));
    case "/sockjs.min.js":
      response.setHeader("Content-Type", "text/javascript");
      return response.end(fs.readFileSync(require.resolve("sockjs-client/dist/sockjs.min.js")));
  }
  response.statusCode = 404;
  response.end();
}

// events goes on behind the last event that the client has.
function events(name, request, response, every) {
  let n = Number(request.headers["last-event-id"] || 0);
  emit({ event: "streams", backend: name, number: n });
  response.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "no-cache" });
  const next = () => response.write(`id: ${++n}\ndata: ${name}\n\n`);
  response.write("retry: 100\n\n");
  next();
  const timer = setInterval(next, every);
  response.on("close", () => clearInterval(timer));
}

process.argv.slice(2).forEach(startServer);
obey({
  close: (_, { backend }) => servers.get(backend).close(),
  stop: (_, { backend }) => servers.get(backend).stop(),
});
