/**
 * The close codes after which nobody comes back: to do the same again would end the same way, or the end was meant.
 *
 * By IANA's WebSocket Close Code Number Registry (RFC 6455 §7.4.1, §11.7): 1000 normal closure, 1002 protocol error,
 * 1003 unsupported data, 1007 invalid payload, 1008 policy violation, 1009 message too big, 1010 mandatory extension,
 * 3000 unauthorized, 3003 forbidden.
 */
export const GIVE_UP_ON: readonly number[];
/** A WebSocket that comes back. */
export class Socket {
    /**
     * Connects at once.
     *
     * @param {string | URL | (() => string | URL | Promise<string | URL>)} url where to; relative to the page's address, and
     *     `http` is as good as `ws`. A function is asked for each attempt: for what is new each time, such as a ticket
     * @param {SocketOptions} [options]
     * @throws {SyntaxError | TypeError} the URL or a subprotocol cannot be one
     */
    constructor(url: string | URL | (() => string | URL | Promise<string | URL>), options?: SocketOptions);
    /** "connecting", "open", "waiting" for the next attempt, or "closed" for good. */
    get state(): State;
    /** The subprotocol that was agreed on, empty if none was. */
    get protocol(): string;
    /** The bytes that have not gone out yet, what is kept among them. */
    get bufferedAmount(): number;
    /**
     * Have a function called at each event of a type. What it throws is reported as an uncaught error.
     *
     * @template {keyof SocketEvents} T
     * @param {T} type
     * @param {(event: SocketEvents[T]) => void} listener
     * @returns {() => void} ends that
     */
    on<T extends keyof SocketEvents>(type: T, listener: (event: SocketEvents[T]) => void): () => void;
    /**
     * Send a message: now, or, while it is not open, as soon as it is. What was kept is sent in its order.
     *
     * @param {Data} data
     * @returns {boolean} `false`: it is dropped, for as much as may be is kept already, or for it is closed for good
     */
    send(data: Data): boolean;
    /**
     * Close it for good. What is kept is dropped.
     *
     * @param {number} [code] 1000, or 3000 to 4999 (default: 1000)
     * @param {string} [reason] at most 123 bytes in UTF-8
     * @throws {DOMException} the code or the reason cannot be one
     */
    close(code?: number, reason?: string): void;
    #private;
}
/**
 * what can be sent
 */
export type Data = string | ArrayBuffer | ArrayBufferView<ArrayBuffer> | Blob;
export type State = "connecting" | "open" | "waiting" | "closed";
export type SocketOptions = {
    /**
     * the subprotocols, as of `WebSocket` (default: none)
     */
    protocols?: string | string[] | undefined;
    /**
     * what binary messages come as (default: "blob")
     */
    binaryType?: BinaryType | undefined;
    /**
     * the close codes after which it does not come back (default: `GIVE_UP_ON`)
     */
    giveUpOn?: readonly number[] | undefined;
    /**
     * after how many failures in a row it gives up (default: never)
     */
    maxFailures?: number | undefined;
    /**
     * ms, the longest wait after the first failure; it doubles with each (default: 500)
     */
    firstDelay?: number | undefined;
    /**
     * ms, the longest wait after any failure (default: 30,000)
     */
    longestDelay?: number | undefined;
    /**
     * ms, after which a URL's function or a handshake without an answer has failed
     * (default: 20,000)
     */
    connectTimeout?: number | undefined;
    /**
     * how many messages are kept while it is not open (default: 100)
     */
    maxQueue?: number | undefined;
    /**
     * of how many bytes together (default: 1 MiB)
     */
    maxQueueSize?: number | undefined;
};
export type SocketEvents = {
    /**
     * it is open, for the first time or again; what was kept is sent after this
     */
    open: Event;
    /**
     * a message has come
     */
    message: Event & {
        data: any;
    };
    /**
     * a connection has
     * ended, or could not be made: `delay` is the time until the next attempt, in ms, `null` if there is none
     */
    close: Event & {
        code: number;
        reason: string;
        wasClean: boolean;
        delay: number | null;
    };
    /**
     * the state is another one
     */
    state: Event & {
        state: State;
    };
    /**
     * a message was not sent, and will not be
     */
    drop: Event & {
        data: Data;
    };
};
