// SPDX-License-Identifier: Apache-2.0
// How do pictures get here? A WebSocket that comes back by itself, and the binary form of a picture.
//
// A message is: uint32 little endian length of the header, header as JSON, parts one after another. The page
// acknowledges a picture once it is drawn; the server then sends the newest there is, and never queues.

const RETRY_MS = [250, 500, 1000, 2000];
const CLOCK_EVERY_MS = 5000;

export class Link {
  #socket = null;
  #tries = 0;
  #best = Infinity; // the shortest way there and back: its clock reading is the best
  offsetMs = 0; // server's clock minus ours
  connected = false;

  constructor({ onPicture, onText, onChange }) {
    Object.assign(this, { onPicture, onText, onChange });
    setInterval(() => this.#askClock(), CLOCK_EVERY_MS);
    this.#open();
  }

  send(message) {
    if (!this.connected) return false;
    this.#socket.send(JSON.stringify(message));
    return true;
  }

  // Milliseconds since the epoch by the server's clock.
  serverNow() { return performance.timeOrigin + performance.now() + this.offsetMs; }

  #open() {
    const address = new URL("socket", location.href);
    address.protocol = "ws:";
    address.hash = "";
    const socket = new WebSocket(address);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      this.#socket = socket;
      this.#tries = 0;
      this.connected = true;
      this.#best = Infinity;
      this.#askClock();
      this.onChange(true);
    };
    socket.onmessage = (event) => {
      if (typeof event.data === "string") this.#text(JSON.parse(event.data));
      else this.#picture(socket, event.data);
    };
    socket.onclose = () => {
      const was = this.connected;
      this.connected = false;
      if (was) this.onChange(false);
      setTimeout(() => this.#open(), RETRY_MS[Math.min(this.#tries++, RETRY_MS.length - 1)]);
    };
  }

  #askClock() { this.send({ type: "clock", t: performance.now() }); }

  #text(message) {
    if (message.type !== "clock") { this.onText(message); return; }
    const now = performance.now();
    const there = now - message.t;
    if (there > this.#best + 2) return; // 2 ms: a reading a little worse may follow a drifting clock
    this.#best = there;
    this.offsetMs = message.server_ms + there / 2 - (performance.timeOrigin + now);
  }

  async #picture(socket, buffer) {
    const length = new DataView(buffer).getUint32(0, true);
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
    let at = 4 + length;
    const decoding = header.parts.map((part) => {
      const bytes = new Uint8Array(buffer, at, part.bytes);
      at += part.bytes;
      if (part.bytes === 0) return { part, bitmap: null };
      return createImageBitmap(new Blob([bytes], { type: part.type }), { colorSpaceConversion: "none" })
        .then((bitmap) => ({ part, bitmap }));
    });
    try {
      await this.onPicture(header, await Promise.all(decoding));
    } finally {
      if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ type: "ack", seq: header.seq }));
    }
  }
}
