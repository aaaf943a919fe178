// What TypeScript knows of uwasp.js. Each marked line must be an error.

import { GIVE_UP_ON, Socket, type SocketOptions, type State } from "uwasp-js";

const options: SocketOptions = { giveUpOn: [...GIVE_UP_ON, 4001], maxQueue: 10, binaryType: "arraybuffer" };
const socket = new Socket(async () => new URL("/rooms/blue", location.href), options);

const end: () => void = socket.on("close", ({ code, delay }) => {
  const wait: number | null = delay;
  console.log(code + 1, wait);
});
socket.on("message", ({ data }) => console.log(data.length));
socket.on("state", ({ state }) => (document.title = state));
socket.on("drop", ({ data }) => socket.send(data));
const state: State = socket.state;
const sent: boolean = socket.send(new Uint8Array(2));
socket.close(4000, "over");
console.log(end, state, sent);

// @ts-expect-error
new Socket("/", { maxQueues: 10 });
// @ts-expect-error
socket.on("message", ({ code }) => code);
// @ts-expect-error
socket.on("messages", () => {});
// @ts-expect-error
socket.send({ type: "join" });
// @ts-expect-error
socket.state = "closed";
