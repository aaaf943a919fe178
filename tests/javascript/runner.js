// Evaluates JavaScript in Node.js: an expression a line on stdin, its value a line on stdout, in JSON.

import { createInterface } from "node:readline";

globalThis.errors = []; // that nobody caught
process.on("uncaughtException", (error) => errors.push(String(error)));

for await (const line of createInterface({ input: process.stdin })) {
  let answer;
  try {
    answer = { value: await (0, eval)(JSON.parse(line)) };
  } catch (error) {
    answer = { error: String(error) };
  }
  console.log(JSON.stringify(answer));
}
