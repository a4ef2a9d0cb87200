// SPDX-License-Identifier: Apache-2.0
// When was it registered, how well, and what happened? The recording's time line, and the way through it.

import { byId, clock, make, pressed, show, text } from "./dom.js";

const BAND = { ACCEPTED: ["#6be3a0", 16], AMBIGUOUS: ["#ffd54a", 10], LOST: ["#ff8d8d", 5] }; // color and height
const RANK = { ACCEPTED: 0, AMBIGUOUS: 1, LOST: 2 }; // of the frames that share a column, the worst is drawn
const FREQUENT = "drop"; // the kind of event that may come with every frame
const PLOT = { top: 22, high: 56, error: "#e6edf2", latency: "#8fd0ff", tick: "#aebbc6" };

export class Replay {
  #line = null; #picture = null; #position = 0; #playing = false; #dragging = false; #wanted = null;

  constructor(send) {
    this.send = send;
    this.scrubber = byId("scrubber");
    this.scrubber.oninput = () => this.seek(Number(this.scrubber.value));
    byId("play").onclick = () => this.toggle();
    byId("back").onclick = () => this.step(-1);
    byId("forth").onclick = () => this.step(1);
    byId("rate").onchange = (event) => this.send({ type: "command", kind: "rate", value: Number(event.target.value) });
    const canvas = byId("timeline");
    const to = (event) => {
      const box = canvas.getBoundingClientRect();
      this.seek(Math.round(((event.clientX - box.left) / box.width) * (this.count - 1)));
    };
    canvas.onpointerdown = (event) => { this.#dragging = true; canvas.setPointerCapture(event.pointerId); to(event); };
    canvas.onpointermove = (event) => { if (this.#dragging) to(event); };
    canvas.onpointerup = () => { this.#dragging = false; };
    new ResizeObserver(() => this.#draw()).observe(canvas);
  }

  get count() { return this.#line?.outcome.length ?? 0; }

  async load() {
    const answer = await fetch("timeline");
    this.#line = await answer.json();
    if (!this.#line) return;
    this.scrubber.max = Math.max(0, this.count - 1);
    byId("event-list").replaceChildren(...gathered(this.#line.events).map(({ index, kind, text: said, count }) => {
      const button = make("button", { title: said }, this.#at(index), make("b", { textContent: count > 1 ? `${count} × ${kind}` : kind }),
        make("span", { textContent: count > 1 ? "from here on" : said }));
      button.onclick = () => this.seek(index);
      return make("li", {}, button);
    }));
    if (!this.#line.events.length) byId("event-list").replaceChildren(make("li", { textContent: "none" }));
    this.#draw();
  }

  status(status) {
    this.#playing = Boolean(status.playing);
    pressed("play", this.#playing);
    text("play", this.#playing ? "Pause" : "Play");
    text("replay-note", status.source_note);
    show("replay-note", status.source_note !== "");
    if (status.rate) byId("rate").value = String(status.rate);
    if (status.position !== null) this.at(status.position);
  }

  // The frame that the server shows. One that was on its way when another was asked for says nothing new: two quick
  // steps are two.
  at(position) {
    const wanted = this.#wanted;
    if (wanted && position !== wanted.frame && !this.#playing && performance.now() < wanted.until) return;
    this.#wanted = null;
    this.#show(position);
  }

  // The frame on the screen.
  #show(position) {
    this.#position = position;
    if (document.activeElement !== this.scrubber || this.#playing) this.scrubber.value = position;
    const last = Math.max(0, this.count - 1);
    text("position", `${this.#at(position)} / ${this.#at(last)}   ${position + 1} of ${this.count}`);
    this.scrubber.setAttribute("aria-valuetext", `${this.#at(position)}, ${this.#line?.outcome[position] ?? ""}`);
    this.#cursor();
  }

  toggle() { this.send({ type: "command", kind: this.#playing ? "pause" : "play" }); }

  seek(frame) {
    const wanted = Math.max(0, Math.min(this.count - 1, frame));
    this.scrubber.value = wanted;
    this.send({ type: "command", kind: "seek", value: wanted });
    this.#wanted = { frame: wanted, until: performance.now() + 1500 };
    this.#show(wanted);
  }

  step(by) {
    if (this.#playing) this.send({ type: "command", kind: "pause" });
    this.seek(this.#position + by);
  }

  // To the next event in a direction.
  event(by) {
    const places = gathered(this.#line?.events ?? []).map((event) => event.index).filter((k) => (by > 0 ? k > this.#position : k < this.#position));
    if (places.length) this.seek(by > 0 ? Math.min(...places) : Math.max(...places));
  }

  #at(index) {
    const times = this.#line?.time_s ?? [];
    return clock((times[index] ?? 0) - (times[0] ?? 0), 2);
  }

  // The band, the two plots and the ticks, drawn once a size.
  #draw() {
    const canvas = byId("timeline");
    const scale = window.devicePixelRatio || 1;
    const width = canvas.clientWidth, height = canvas.clientHeight;
    if (!this.#line || !this.count || !width) return;
    const picture = new OffscreenCanvas(width * scale, height * scale);
    const context = picture.getContext("2d");
    context.scale(scale, scale);
    const { outcome, projected_mm: error, latency_ms: latency, events } = this.#line;
    const x = (k) => (this.count > 1 ? (k / (this.count - 1)) * (width - 1) : 0);
    const worst = new Array(Math.ceil(width)).fill(null);
    outcome.forEach((one, k) => {
      const first = Math.floor(x(k)), last = k + 1 < this.count ? Math.max(first, Math.ceil(x(k + 1)) - 1) : first;
      for (let c = first; c <= last; c++) if (worst[c] === null || RANK[one] > RANK[worst[c]]) worst[c] = one;
    });
    worst.forEach((one, c) => {
      if (!BAND[one]) return;
      const [color, high] = BAND[one];
      context.fillStyle = color;
      context.fillRect(c, 17 - high, 1.02, high);
    });
    plot(context, latency, x, PLOT.latency, [2, 3]);
    plot(context, error, x, PLOT.error, []);
    context.fillStyle = PLOT.tick;
    for (const { index, kind } of events) {
      const high = kind === FREQUENT ? 3 : 8;
      context.fillRect(x(index) - 1, height - high, 2, high);
    }
    labels(context, error, latency, width);
    this.#picture = picture;
    [canvas.width, canvas.height] = [picture.width, picture.height];
    this.#cursor();
  }

  #cursor() {
    if (!this.#picture) return;
    const canvas = byId("timeline");
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.drawImage(this.#picture, 0, 0);
    const at = this.count > 1 ? (this.#position / (this.count - 1)) * (canvas.width - 2) : 0;
    context.fillStyle = "#ffffff";
    context.fillRect(at, 0, 2, canvas.height);
  }
}

// Drops in a row are one entry: a list of a thousand hides what matters.
function gathered(events) {
  const out = [];
  for (const event of events) {
    const last = out.at(-1);
    if (last?.kind === event.kind && event.kind === FREQUENT) last.count++;
    else out.push({ ...event, count: 1 });
  }
  return out;
}

function top(values) {
  const known = values.filter((value) => Number.isFinite(value) && value !== null).sort((a, b) => a - b);
  return known.length ? known[Math.floor(0.995 * (known.length - 1))] * 1.1 || 1 : 1; // one outlier flattens nothing
}

function plot(context, values, x, color, dash) {
  const most = top(values);
  context.strokeStyle = color;
  context.lineWidth = 1.5;
  context.setLineDash(dash);
  context.beginPath();
  let pen = false;
  values.forEach((value, k) => {
    if (value === null || !Number.isFinite(value)) { pen = false; return; }
    const y = PLOT.top + PLOT.high * (1 - Math.min(value, most) / most);
    if (pen) context.lineTo(x(k), y);
    else context.moveTo(x(k), y);
    pen = true;
  });
  context.stroke();
  context.setLineDash([]);
}

function labels(context, error, latency, width) {
  context.font = "13px system-ui, sans-serif";
  const words = [[`±${top(error).toFixed(1)} mm`, PLOT.error, 4, "left"], [`${top(latency).toFixed(0)} ms`, PLOT.latency, width - 4, "right"]];
  for (const [said, color, at, align] of words) {
    context.textAlign = align;
    context.strokeStyle = "#0b0e11";
    context.lineWidth = 4;
    context.strokeText(said, at, PLOT.top + 12);
    context.fillStyle = color;
    context.fillText(said, at, PLOT.top + 12);
  }
}
