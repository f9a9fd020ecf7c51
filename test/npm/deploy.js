// An app server of the package ws for the tests of deploys: node deploy.js NAME JOURNAL. Its
// handlers are asynchronous and answer after 20 ms. What it says and writes down is told in
// deploy_app_test.go. It ends when stdin does, and politely on SIGTERM.
"use strict";
const fs = require("node:fs");
const WebSocket = require("ws");

const [name, path] = process.argv.slice(2);
const journal = fs.openSync(path, "a");
const note = (...words) => fs.writeSync(journal, words.join(" ") + "\n");
const answerAfter = 20;

function content(n) {
  const size = n % 128 === 77 ? 70000 : n % 16 === 9 ? 300 : 32;
  return String.fromCharCode(97 + (n % 26)).repeat(size);
}

const server = new WebSocket.Server({ host: "127.0.0.1", port: 0, perMessageDeflate: false });
let last = 0;
let stopping = false;

server.on("listening", () => console.log("127.0.0.1:" + server.address().port));
server.on("connection", (socket, request) => {
  const id = name + "/" + ++last;
  const query = new URL(request.url, "http://app").searchParams;
  const every = Number(query.get("every"));
  const whole = query.has("whole");
  let pushed = 0;
  let silent = false;
  const open = () => socket.readyState === WebSocket.OPEN;
  note("open", id, query.get("client"), request.headers["tidegate-attempt"] || 0);

  const push = () => {
    if (silent || !open()) return;
    const n = ++pushed;
    const text = `p ${id} ${n} ${content(n)}`;
    if (n % 8 === 5 && !whole) {
      socket.send(text.slice(0, 16), { fin: false });
      socket.send(text.slice(16));
    } else {
      socket.send(text);
    }
    note("push", id, n, Date.now());
    setTimeout(push, every * (0.5 + Math.random()));
  };
  setTimeout(push, every * Math.random());

  socket.on("message", (data) => {
    const text = data.toString();
    const [kind, n] = text.split(" ", 2);
    const came = performance.now();
    if (kind === "done") silent = true;
    else note("got", id, n);
    setTimeout(() => {
      if (!open()) note("late", id, n, Math.round(performance.now() - came));
      else socket.send(kind === "done" ? `done ${id} ${pushed}` : text);
    }, answerAfter);
  });
  socket.on("error", () => {}); // close comes
  socket.on("close", () => note("end", id, pushed));
  if (stopping) socket.close(1012, "restarting");
});

process.on("SIGTERM", () => {
  stopping = true;
  server.close(() => process.exit(0));
  for (const socket of server.clients) socket.close(1012, "restarting");
  setTimeout(() => process.exit(0), 5000);
});
process.stdin.resume().on("end", () => process.exit(0));
