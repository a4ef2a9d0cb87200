// SPDX-License-Identifier: Apache-2.0
// What does a hand on the picture do? Window and level; a nudge of the case; a measured length.

import { toast } from "./dom.js";
import { moved, turned } from "./nudge.js";

const WAIT_MS = 1500; // a nudge that no frame answers in this time springs back
const WHEEL_MM = 2; // along the ray, a notch

export class Pointer {
  #from = null; #pending = 0; #moved = 0; #points = []; #wheel = { mm: 0, timer: 0 };

  constructor(stage, store, send, header) {
    Object.assign(this, { stage, store, send, header });
    const stack = stage.stack;
    stack.addEventListener("pointerdown", (event) => this.#down(event));
    stack.addEventListener("pointermove", (event) => this.#move(event));
    stack.addEventListener("pointerup", (event) => this.#up(event));
    stack.addEventListener("pointercancel", () => this.#cancel());
    stack.addEventListener("wheel", (event) => this.#along(event), { passive: false });
    stack.addEventListener("dblclick", () => {
      if (!store.value.nudge && !store.value.measure) store.set({ window: 255, level: 127.5 });
    });
  }

  // A new picture: the nudge it answers needs no preview any more; lengths belong to the old one.
  took(header) {
    if (header.moved !== this.#moved && this.#pending) this.#cancel();
    this.#moved = header.moved;
    this.marks();
  }

  // Arrow keys while nudging: 1 mm in the plane of the target.
  byKeys(du, dv) { this.#nudge(moved(du, dv, [1, 1])); }

  clearMeasure() {
    this.#points = [];
    this.marks();
  }

  // The measured length, drawn on its own canvas.
  marks() {
    const { marks } = this.stage;
    const context = marks.getContext("2d");
    context.clearRect(0, 0, marks.width, marks.height);
    if (!this.#points.length || !this.store.value.measure) return;
    const unit = marks.width / this.stage.stack.clientWidth; // screen pixels, whatever the picture's matrix
    context.strokeStyle = context.fillStyle = "#ffffff";
    context.lineWidth = 2 * unit;
    context.shadowColor = "#000";
    context.shadowBlur = 4 * unit;
    for (const [u, v] of this.#points) {
      context.beginPath();
      context.arc(u + 0.5, v + 0.5, 5 * unit, 0, 2 * Math.PI);
      context.stroke();
    }
    if (this.#points.length < 2) return;
    const [[u0, v0], [u1, v1]] = this.#points;
    context.beginPath();
    context.moveTo(u0 + 0.5, v0 + 0.5);
    context.lineTo(u1 + 0.5, v1 + 0.5);
    context.stroke();
    context.font = `600 ${20 * unit}px system-ui, sans-serif`;
    const { said } = this.length();
    const left = Math.min((u0 + u1) / 2 + 10 * unit, marks.width - context.measureText(said).width - 8 * unit);
    context.fillText(said, left, (v0 + v1) / 2 - 8 * unit);
  }

  length() {
    const { target } = this.header();
    if (this.#points.length < 2 || !target.mm_per_px_u_v) return { mm: null, said: "no geometry: no length" };
    const [[u0, v0], [u1, v1]] = this.#points;
    const long = Math.hypot((u1 - u0) * target.mm_per_px_u_v[0], (v1 - v0) * target.mm_per_px_u_v[1]);
    return { mm: long, said: `${long.toFixed(1)} mm in the plane of the ${target.plane}` };
  }

  #down(event) {
    if (event.button !== 0 || !this.header()) return;
    const at = this.stage.pixel(event);
    const { measure, nudge } = this.store.value;
    if (measure) {
      this.#points = this.#points.length === 1 ? [this.#points[0], at] : [at];
      this.marks();
      return;
    }
    if (nudge && !this.#mayNudge()) return;
    this.stage.stack.setPointerCapture(event.pointerId);
    this.#from = { at, x: event.clientX, y: event.clientY, turn: event.shiftKey, nudge,
      window: this.store.value.window, level: this.store.value.level, by: [0, 0, 0] };
  }

  #move(event) {
    const from = this.#from;
    if (!from) return;
    if (!from.nudge) {
      const clamp = (value, low, high) => Math.max(low, Math.min(high, value));
      this.store.set({ window: clamp(from.window + (event.clientX - from.x) * 0.6, 8, 510),
        level: clamp(from.level + (event.clientY - from.y) * 0.4, 0, 255) });
      return;
    }
    const [u, v] = this.stage.pixel(event);
    const about = this.header().target.px_u_v;
    if (from.turn) {
      const angle = (p) => Math.atan2(p[1] - about[1], p[0] - about[0]);
      const turn = angle([u, v]) - angle(from.at);
      from.by = [0, 0, Math.atan2(Math.sin(turn), Math.cos(turn))];
    } else from.by = [u - from.at[0], v - from.at[1], 0];
    this.stage.preview(...from.by, 1, about);
  }

  #up() {
    const from = this.#from;
    this.#from = null;
    if (!from?.nudge || !from.by.some((one) => one !== 0)) return;
    const { target } = this.header();
    const xi = from.turn ? turned(from.by[2], target.in_carm_mm) : moved(from.by[0], from.by[1], target.mm_per_px_u_v);
    this.#nudge(xi);
  }

  // The wheel gathers its notches: one nudge, not twenty.
  #along(event) {
    if (!this.store.value.nudge || !this.#mayNudge()) return;
    event.preventDefault();
    this.#wheel.mm += event.deltaY < 0 ? WHEEL_MM : -WHEEL_MM;
    const { carm, target } = this.header();
    const depth = carm.sod_mm - target.in_carm_mm[2];
    this.stage.preview(0, 0, 0, depth / (depth - this.#wheel.mm), target.px_u_v);
    clearTimeout(this.#wheel.timer);
    this.#wheel.timer = setTimeout(() => {
      this.#nudge([0, 0, 0, 0, 0, this.#wheel.mm]); // +z is towards the source
      this.#wheel.mm = 0;
    }, 250);
  }

  #mayNudge() {
    const may = this.header().state.outcome === "ACCEPTED" && !this.store.value.hold;
    if (!may) toast(this.store.value.hold ? "Held picture: release the hold to nudge." : "Nothing to nudge: register first (G).");
    return may;
  }

  #nudge(xi) {
    if (!this.#mayNudge()) { this.#cancel(); return; }
    this.send({ type: "command", kind: "nudge", value: xi });
    clearTimeout(this.#pending);
    this.#pending = setTimeout(() => this.#cancel(), WAIT_MS);
  }

  #cancel() {
    this.#from = null;
    clearTimeout(this.#pending);
    this.#pending = 0;
    this.stage.endPreview();
  }
}
