// Socket.IO's own client: one command a line on stdin, one answer a line on stdout, in JSON. A value that is binary is
// {"base64": "..."}. There are several sockets, each with a number.

import { createInterface } from "node:readline";
import { io } from "socket.io-client";

const sockets = new Map();

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

const decode = (value) => {
  if (Array.isArray(value)) return value.map(decode);
  if (value?.base64 !== undefined) return Buffer.from(value.base64, "base64");
  return value;
};
const encode = (value) => {
  if (Array.isArray(value)) return value.map(encode);
  if (value instanceof ArrayBuffer || ArrayBuffer.isView(value)) return { base64: Buffer.from(value).toString("base64") };
  return value;
};

const commands = {
  connect({ number, url, ...options }) {
    const socket = io(url, { forceNew: true, reconnectionDelay: 50, reconnectionDelayMax: 200, ...options });
    const events = new Queue();
    const states = new Queue();
    sockets.set(number, { socket, events, states });
    socket.onAny((event, ...data) => {
      if (event !== "ask") events.put([event, ...encode(data)]);
    });
    socket.on("ask", (question, answer) => answer(`yes: ${question}`));
    socket.on("connect", () => states.put({ state: "connect" }));
    socket.on("disconnect", (reason) => states.put({ state: "disconnect", reason }));
    socket.on("connect_error", (error) => states.put({ state: "connect_error", reason: error.message }));
    return {};
  },
  state: ({ number }) => sockets.get(number).states.take(),
  transport: ({ number }) => ({ name: sockets.get(number).socket.io.engine.transport.name }),
  emit({ number, data }) {
    sockets.get(number).socket.emit(...decode(data));
    return {};
  },
  async call({ number, data }) {
    const values = await new Promise((resolve) => {
      sockets.get(number).socket.emit(...decode(data), (...answer) => resolve(answer));
    });
    return { value: encode(values) };
  },
  async receive({ number }) {
    return { value: await sockets.get(number).events.take() };
  },
  disconnect({ number }) {
    sockets.get(number).socket.disconnect();
    return {};
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
