// A WebSocket client on the package `ws`: one command a line on stdin, one answer a line on stdout, in JSON.
// A binary message is in base64. There is one connection at a time.

import { createInterface } from "node:readline";
import WebSocket from "ws";

let socket;
let messages;
let closed;

/** Values that come when they come, for takers that wait. */
class Queue {
  #values = [];
  #takers = [];

  put(value) {
    const taker = this.#takers.shift();
    if (taker) taker(value);
    else this.#values.push(value);
  }

  take() {
    return this.#values.length
      ? Promise.resolve(this.#values.shift())
      : new Promise((resolve) => this.#takers.push(resolve));
  }
}

const payload = ({ text, binary }) => (text === undefined ? Buffer.from(binary, "base64") : text);

const commands = {
  open({ url, subprotocols, compression }) {
    socket = new WebSocket(url, subprotocols, { perMessageDeflate: compression });
    messages = new Queue();
    closed = new Promise((resolve) => {
      socket.on("close", (code, reason) => resolve({ code, reason: reason.toString() }));
    });
    socket.on("message", (data, isBinary) => {
      messages.put(isBinary ? { binary: data.toString("base64") } : { text: data.toString() });
    });
    return new Promise((resolve, reject) => {
      socket.on("open", () => resolve({ subprotocol: socket.protocol, extensions: socket.extensions }));
      socket.on("error", reject);
    });
  },
  send: ({ fin = true, ...message }) =>
    new Promise((resolve) => socket.send(payload(message), { fin }, () => resolve({}))),
  receive: () => messages.take(),
  ping: ({ text }) =>
    new Promise((resolve) => {
      socket.once("pong", (data) => resolve({ text: data.toString() }));
      socket.ping(text);
    }),
  close({ code, reason }) {
    socket.close(code, reason);
    return closed;
  },
  closed: () => closed,
  terminate() {
    socket.terminate();
    return closed;
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const { command, ...parameters } = JSON.parse(line);
  try {
    console.log(JSON.stringify(await commands[command](parameters)));
  } catch (error) {
    console.log(JSON.stringify({ error: String(error) }));
  }
}
