// Clients of the packages socket.io-client, engine.io-client, sockjs-client and eventsource.
// The command open makes one of a kind, with an id and a url; it says "first" as soon as it is
// open, and when its connection ends it makes another one, by itself or, where the package has
// nothing for that, here. Each of its connections is reported as open. Those of a browser keep
// cookies; header is one that the client sends. The command say has a text for the server.
"use strict";
const { io } = require("socket.io-client");
const { Socket: EngineSocket } = require("engine.io-client");
const SockJS = require("sockjs-client");
const { EventSource } = require("eventsource");
const { Jar } = require("./jar.js");
const { emit, obey } = require("./peers.js");

const reopenAfter = 200; // milliseconds
const clients = new Map();

// heard reports a text of a server: its name, the transport, and the rest.
function heard(id, line) {
  const [backend, transport, ...words] = line.split(" ");
  emit({ id, event: "text", backend, transport, text: words.join(" ") });
}

const kinds = {
  "socket.io"(id, url, { header, transports, credentials }) {
    const options = { forceNew: true, reconnectionDelay: reopenAfter };
    if (header) options.extraHeaders = header;
    if (transports) options.transports = transports;
    if (credentials) options.withCredentials = true;
    const socket = io(url, options);
    const opened = () => { // the connection is, before the socket
      const { engine } = socket.io;
      emit({ id, event: "open", transport: engine.transport.name });
      engine.once("upgrade", (transport) => emit({ id, event: "upgrade", transport: transport.name }));
    };
    socket.io.on("open", opened);
    socket.on("connect", () => socket.emit("say", "first"));
    socket.on("said", (line) => heard(id, line));
    socket.on("disconnect", (reason) => emit({ id, event: "close", text: reason }));
    socket.on("connect_error", (error) => emit({ id, event: "error", text: error.message }));
    return (text) => socket.emit("say", text);
  },

  "engine.io"(id, url, { header, transports }) {
    const options = {};
    if (header) options.extraHeaders = header;
    if (transports) options.transports = transports;
    let socket;
    const open = () => {
      socket = new EngineSocket(url, options);
      socket.on("open", () => {
        emit({ id, event: "open", transport: socket.transport.name });
        socket.send("first");
      });
      socket.on("upgrade", (transport) => emit({ id, event: "upgrade", transport: transport.name }));
      socket.on("message", (line) => heard(id, line));
      socket.on("close", (reason) => {
        emit({ id, event: "close", text: reason });
        setTimeout(open, reopenAfter);
      });
    };
    open();
    return (text) => socket.send(text);
  },

  sockjs(id, url, { transports }, jar) {
    // Handshakes are not made with node:http.
    const websocket = { get headers() { return jar.headers; } };
    let socket;
    const open = () => {
      socket = new SockJS(url + "/sockjs", null, { transports, transportOptions: { websocket } });
      socket.onopen = () => {
        emit({ id, event: "open", transport: socket.transport });
        socket.send("first");
      };
      socket.onmessage = ({ data }) => heard(id, data);
      socket.onclose = ({ reason }) => {
        emit({ id, event: "close", text: String(reason) });
        setTimeout(open, reopenAfter);
      };
    };
    open();
    return (text) => socket.readyState === SockJS.OPEN && socket.send(text);
  },

  eventsource(id, url) {
    const source = new EventSource(url);
    source.onopen = () => emit({ id, event: "open", transport: "eventsource" });
    source.onmessage = ({ data, lastEventId }) => emit({ id, event: "event", backend: data, number: Number(lastEventId) });
    source.onerror = ({ message }) => emit({ id, event: "close", text: String(message) });
  },
};

obey({
  open(_, { id, kind, url, browser, ...options }) {
    const jar = new Jar(kind === "sockjs" ? options.header : undefined); // it cannot be told of headers
    const within = browser || kind === "sockjs" ? (f) => jar.run(f) : (f) => f();
    const say = within(() => kinds[kind](id, url, options, jar));
    clients.set(id, (text) => within(() => say(text)));
  },
  say: (_, { id, text }) => clients.get(id)(text),
});
