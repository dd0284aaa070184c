// A WebSocket on /signals that comes back by itself.

import { messagesOf, readControl, WireError } from "./wire.js";

const BACKOFF_FIRST_MS = 500;
const BACKOFF_MAX_MS = 5000;

/** The address of /signals with a query; parameters that are empty are left out. */
export function signalsAddress(parameters) {
  const address = new URL("/signals", location.href);
  address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== "" && value !== undefined) address.searchParams.set(name, value);
  }
  return address.href;
}

/** Open a WebSocket; `receive` gets {messages: [{header, bytes, control}]} of each frame. */
export function openSocket(address, protocols, receive) {
  const socket = new WebSocket(address, protocols);
  socket.binaryType = "arraybuffer";
  socket.addEventListener("message", ({ data }) => {
    if (!(data instanceof ArrayBuffer) || socket.readyState !== WebSocket.OPEN) return;
    try {
      receive([...messagesOf(data)].map(withControl));
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      socket.close(4000, "unreadable frame");
    }
  });
  return socket;
}

function withControl(message) {
  return { ...message, control: readControl(message.bytes, message.header) };
}

/**
 * The live feed. `onMessages` gets an array for each frame, `onState` one of "connecting", "open"
 * and "lost" with the reason that the relay gave, or "".
 */
export class Feed {
  #api;
  #onMessages;
  #onState;
  #parameters = {};
  #start = {};
  #socket = null;
  #timer = null;
  #backoff = BACKOFF_FIRST_MS;

  constructor(api, onMessages, onState) {
    this.#api = api;
    this.#onMessages = onMessages;
    this.#onState = onState;
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden && this.#timer !== null) this.reconnect();
    });
  }

  /** Begin anew with another query; `start` says where, and holds only until it is open. */
  open(parameters, start) {
    this.#parameters = parameters;
    this.#start = start;
    this.reconnect();
  }

  /** Try at once, whether there is a connection or not. */
  reconnect() {
    this.close();
    this.#onState("connecting", "");
    const address = signalsAddress({ ...this.#parameters, ...this.#start });
    const socket = openSocket(address, this.#api.protocols, (messages) => {
      if (socket === this.#socket) this.#onMessages(messages);
    });
    this.#socket = socket;
    socket.addEventListener("open", () => {
      if (socket !== this.#socket) return;
      this.#backoff = BACKOFF_FIRST_MS;
      this.#start = {};
      this.#onState("open", "");
    });
    socket.addEventListener("close", ({ reason }) => {
      if (socket === this.#socket) this.#lost(reason);
    });
  }

  close() {
    clearTimeout(this.#timer);
    this.#timer = null;
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
  }

  #lost(reason) {
    this.#socket = null;
    this.#onState("lost", reason);
    this.#timer = setTimeout(() => this.reconnect(), this.#backoff);
    this.#backoff = Math.min(2 * this.#backoff, BACKOFF_MAX_MS);
  }
}
