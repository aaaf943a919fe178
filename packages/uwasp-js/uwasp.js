// A WebSocket that comes back, for pages whose server is uWASP, or any other.
//
// One ES module without dependencies, served as it is. It knows no message: what is said, and what is said again when the
// connection is another one, is for who uses it. Types are in JSDoc; uwasp.d.ts is what tsc makes of them.

/**
 * The close codes after which nobody comes back: to do the same again would end the same way, or the end was meant.
 *
 * By IANA's WebSocket Close Code Number Registry (RFC 6455 §7.4.1, §11.7): 1000 normal closure, 1002 protocol error,
 * 1003 unsupported data, 1007 invalid payload, 1008 policy violation, 1009 message too big, 1010 mandatory extension,
 * 3000 unauthorized, 3003 forbidden.
 */
export const GIVE_UP_ON = Object.freeze([1000, 1002, 1003, 1007, 1008, 1009, 1010, 3000, 3003]);

// From when to when one comes back, in milliseconds, after a server that goes away, restarts, or has too much to do. All of
// its clients are told so in one moment: each waits for a random time of its own.
/** @type {Record<number, [number, number]>} */
const COME_BACK = { 1001: [0, 2000], 1012: [5000, 30_000], 1013: [5000, 30_000] };
const SPREAD = 2000; // milliseconds after "reconnect in 5 s"
const TOLD = /\breconnect in (\d{1,6})(?: to (\d{1,6}))? s\b/; // of more digits, setTimeout could make nothing
const PROVEN = 5000; // milliseconds; a connection that has lived so long was no failure

/** @typedef {string | ArrayBuffer | ArrayBufferView<ArrayBuffer> | Blob} Data what can be sent */
/** @typedef {"connecting" | "open" | "waiting" | "closed"} State */

/**
 * @typedef {object} SocketOptions
 * @property {string | string[]} [protocols] the subprotocols, as of `WebSocket` (default: none)
 * @property {BinaryType} [binaryType] what binary messages come as (default: "blob")
 * @property {readonly number[]} [giveUpOn] the close codes after which it does not come back (default: `GIVE_UP_ON`)
 * @property {number} [maxFailures] after how many failures in a row it gives up (default: never)
 * @property {number} [firstDelay] ms, the longest wait after the first failure; it doubles with each (default: 500)
 * @property {number} [longestDelay] ms, the longest wait after any failure (default: 30,000)
 * @property {number} [connectTimeout] ms, after which a URL's function or a handshake without an answer has failed
 *     (default: 20,000)
 * @property {number} [maxQueue] how many messages are kept while it is not open (default: 100)
 * @property {number} [maxQueueSize] of how many bytes together (default: 1 MiB)
 */

/**
 * @typedef {object} SocketEvents
 * @property {Event} open it is open, for the first time or again; what was kept is sent after this
 * @property {Event & {data: any}} message a message has come
 * @property {Event & {code: number, reason: string, wasClean: boolean, delay: number | null}} close a connection has
 *     ended, or could not be made: `delay` is the time until the next attempt, in ms, `null` if there is none
 * @property {Event & {state: State}} state the state is another one
 * @property {Event & {data: Data}} drop a message was not sent, and will not be
 */

/**
 * Within which time the server wants its client back, in milliseconds, by the close reason or by the code.
 *
 * @param {number} code
 * @param {string} reason
 * @returns {[number, number] | undefined} from when to when; nothing, if it has not asked for anything
 */
function askedFor(code, reason) {
  const told = TOLD.exec(reason);
  if (!told) return COME_BACK[code];
  const least = Number(told[1]) * 1000;
  return [least, told[2] ? Number(told[2]) * 1000 : least + SPREAD];
}

/** A WebSocket that comes back. */
export class Socket {
  /** @type {string | URL | (() => string | URL | Promise<string | URL>)} */
  #url;
  /** @type {Required<Omit<SocketOptions, "protocols">> & {protocols: string | string[]}} */
  #options;
  #target = new EventTarget();
  /** @type {WebSocket | undefined} */
  #socket;
  /** @type {State} */
  #state = "connecting";
  /** @type {{data: Data, size: number}[]} */
  #kept = [];
  #keptSize = 0;
  #failures = 0; // in a row
  #openedAt = Infinity; // ms, of performance.now()
  #isAsked = false; // to wait, by the server
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;

  /**
   * Connects at once.
   *
   * @param {string | URL | (() => string | URL | Promise<string | URL>)} url where to; relative to the page's address, and
   *     `http` is as good as `ws`. A function is asked for each attempt: for what is new each time, such as a ticket
   * @param {SocketOptions} [options]
   * @throws {SyntaxError | TypeError} the URL or a subprotocol cannot be one
   */
  constructor(url, options = {}) {
    this.#url = url;
    this.#options = {
      protocols: [],
      binaryType: "blob",
      giveUpOn: GIVE_UP_ON,
      maxFailures: Infinity,
      firstDelay: 500,
      longestDelay: 30_000,
      connectTimeout: 20_000,
      maxQueue: 100,
      maxQueueSize: 2 ** 20,
      ...options,
    };
    this.#connect();
    globalThis.addEventListener?.("online", this.#online);
  }

  /** "connecting", "open", "waiting" for the next attempt, or "closed" for good. */
  get state() {
    return this.#state;
  }

  /** The subprotocol that was agreed on, empty if none was. */
  get protocol() {
    return this.#socket?.protocol ?? "";
  }

  /** The bytes that have not gone out yet, what is kept among them. */
  get bufferedAmount() {
    return (this.#socket?.bufferedAmount ?? 0) + this.#keptSize;
  }

  /**
   * Have a function called at each event of a type. What it throws is reported as an uncaught error.
   *
   * @template {keyof SocketEvents} T
   * @param {T} type
   * @param {(event: SocketEvents[T]) => void} listener
   * @returns {() => void} ends that
   */
  on(type, listener) {
    const heard = (/** @type {any} */ event) => listener(event);
    this.#target.addEventListener(type, heard);
    return () => this.#target.removeEventListener(type, heard);
  }

  /**
   * Send a message: now, or, while it is not open, as soon as it is. What was kept is sent in its order.
   *
   * @param {Data} data
   * @returns {boolean} `false`: it is dropped, for as much as may be is kept already, or for it is closed for good
   */
  send(data) {
    if (this.#socket?.readyState === WebSocket.OPEN) {
      this.#socket.send(/** @type {any} */ (data));
      return true;
    }
    const size = new Blob([/** @type {any} */ (data)]).size;
    const { maxQueue, maxQueueSize } = this.#options;
    if (this.#state === "closed" || this.#kept.length >= maxQueue || this.#keptSize + size > maxQueueSize) {
      this.#tell("drop", { data });
      return false;
    }
    this.#kept.push({ data: structuredClone(data), size }); // a buffer may be changed meanwhile
    this.#keptSize += size;
    return true;
  }

  /**
   * Close it for good. What is kept is dropped.
   *
   * @param {number} [code] 1000, or 3000 to 4999 (default: 1000)
   * @param {string} [reason] at most 123 bytes in UTF-8
   * @throws {DOMException} the code or the reason cannot be one
   */
  close(code = 1000, reason = "") {
    this.#socket?.close(code, reason);
    this.#end();
  }

  #connect() {
    clearTimeout(this.#timer);
    this.#change("connecting");
    const url = this.#url;
    if (typeof url !== "function") {
      this.#open(url);
      return;
    }
    const { connectTimeout } = this.#options;
    const late = new Promise((_, reject) => {
      this.#timer = setTimeout(() => reject(new Error(`no URL within ${connectTimeout} ms`)), connectTimeout);
    });
    Promise.race([new Promise((resolve) => resolve(url())), late])
      .finally(() => clearTimeout(this.#timer))
      .then((found) => this.#state === "closed" || this.#open(found))
      .catch((error) => this.#ended({ code: 1006, reason: String(error), wasClean: false }));
  }

  /** @param {string | URL} url */
  #open(url) {
    const address = new URL(url, globalThis.location?.href);
    address.protocol = address.protocol.replace("http", "ws");
    const socket = (this.#socket = new WebSocket(address, this.#options.protocols));
    socket.binaryType = this.#options.binaryType;
    let isOver = false;
    const ended = (/** @type {{code: number, reason: string, wasClean: boolean}} */ event) => {
      clearTimeout(unanswered);
      if (!isOver) this.#ended(event);
      isOver = true;
    };
    const failed = () => ended({ code: 1006, reason: "", wasClean: false });
    const unanswered = setTimeout(() => {
      socket.close();
      failed();
    }, this.#options.connectTimeout);
    socket.onopen = () => {
      clearTimeout(unanswered);
      this.#openedAt = performance.now();
      this.#change("open");
      this.#tell("open");
      this.#flush();
    };
    socket.onmessage = ({ data }) => this.#tell("message", { data });
    socket.onclose = ended;
    // Node.js 22 has no close after the error of a handshake. Where there is one, it has come by then.
    socket.onerror = () => isFinite(this.#openedAt) || setTimeout(failed);
  }

  #flush() {
    while (this.#socket?.readyState === WebSocket.OPEN) {
      const next = this.#kept.shift();
      if (!next) return;
      this.#keptSize -= next.size;
      this.#socket.send(/** @type {any} */ (next.data));
    }
  }

  /** @param {{code: number, reason: string, wasClean: boolean}} event of the connection, or of the attempt to make one */
  #ended({ code, reason, wasClean }) {
    if (performance.now() - this.#openedAt > PROVEN) this.#failures = 0;
    this.#openedAt = Infinity;
    const asked = askedFor(code, reason);
    if (!asked) this.#failures++;
    const { giveUpOn, maxFailures, firstDelay, longestDelay } = this.#options;
    let delay = null;
    if (this.#state === "closed" || giveUpOn.includes(code) || this.#failures >= maxFailures) {
      this.#end();
    } else {
      this.#isAsked = Boolean(asked);
      const [least, most] = asked ?? [0, Math.min(longestDelay, firstDelay * 2 ** (this.#failures - 1))];
      delay = least + Math.random() * Math.max(0, most - least);
      this.#timer = setTimeout(() => this.#connect(), delay);
      this.#change("waiting");
    }
    if (this.#state !== "waiting") delay = null; // who heard of the state may have closed it
    this.#tell("close", { code, reason, wasClean, delay });
  }

  /** The network is there again: what has failed may succeed now. */
  #online = () => {
    if (this.#state === "waiting" && !this.#isAsked) this.#connect();
  };

  #end() {
    clearTimeout(this.#timer);
    globalThis.removeEventListener?.("online", this.#online);
    this.#change("closed");
    this.#keptSize = 0;
    for (const { data } of this.#kept.splice(0)) this.#tell("drop", { data });
  }

  /** @param {State} state */
  #change(state) {
    if (this.#state === state) return;
    this.#state = state;
    this.#tell("state", { state });
  }

  /**
   * @param {keyof SocketEvents} type
   * @param {object} [details]
   */
  #tell(type, details) {
    this.#target.dispatchEvent(Object.assign(new Event(type), details));
  }
}
