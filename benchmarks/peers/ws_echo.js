// ws on Node.js: an echo, a broadcast and a plain page.

"use strict";

const http = require("node:http");
const { WebSocketServer } = require("ws");

const everyone = new Set();
const server = http.createServer((request, response) => {
  response.writeHead(200, { "Content-Type": "text/plain", "Content-Length": 3 });
  response.end("ok\n");
});
const sockets = new WebSocketServer({
  server,
  perMessageDeflate: false,
  maxPayload: Number(process.env.MAX_MESSAGE_SIZE),
});

sockets.on("connection", (socket, request) => {
  if (request.url === "/broadcast") {
    everyone.add(socket);
    socket.on("close", () => everyone.delete(socket));
    socket.on("message", (message, isBinary) => {
      for (const other of everyone) other.send(message, { binary: isBinary });
    });
  } else {
    socket.on("message", (message, isBinary) => socket.send(message, { binary: isBinary }));
  }
});

server.listen({ port: Number(process.argv[2]), host: "127.0.0.1", backlog: 1024 });
