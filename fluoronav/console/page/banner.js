// SPDX-License-Identifier: Apache-2.0
// May I trust it? The state in a word, a shape and a color; what is not live; what is held.

import { byId, mm, show, text } from "./dom.js";

const BOUND_EVERY_MS = 300; // numbers that change with every frame cannot be read: the largest of 0.3 s is shown

export class Banner {
  #word = ""; #boundAt = 0; #worst = [0, 0]; #announced = "";

  // `state` is the header's; noCase where nothing can be registered. What was never found is not lost: it begins.
  state(state, noCase, now) {
    const word = noCase ? "NO CASE" : state.word;
    const bounded = !noCase && state.outcome === "ACCEPTED";
    const changed = word !== this.#word;
    this.#word = word;
    document.body.dataset.state = noCase || state.begins ? "none" : state.outcome;
    text("state-word", word);
    text("state-why", bounded ? "" : noCase ? "Pictures only: no case is open." : sentence(state.why));
    if (!bounded) {
      this.#worst = [0, 0];
      text("state-bound", "");
    } else {
      this.#worst = [Math.max(this.#worst[0], state.projected_mm ?? Infinity), Math.max(this.#worst[1], state.spatial_mm ?? Infinity)];
      if (changed || now - this.#boundAt > BOUND_EVERY_MS) {
        const bound = byId("state-bound");
        const depth = document.createElement("small");
        depth.textContent = `3D ±${mm(this.#worst[1])}`;
        bound.replaceChildren(`±${mm(this.#worst[0])}`, depth);
        bound.title = "95 % bounds at the target: in the picture's plane, and in 3D with depth";
        this.#boundAt = now;
        this.#worst = [0, 0];
      }
    }
    if (changed) this.#announce(`${word}. ${byId("state-bound").textContent} ${byId("state-why").textContent}`);
  }

  live({ kind, seconds, why }) {
    const body = document.body.dataset;
    const stale = kind === "stale" || kind === "waiting";
    const was = body.live;
    body.live = kind === "waiting" ? "stale" : kind;
    show("not-live", stale);
    if (stale) {
      text("not-live-seconds", kind === "waiting" ? "" : `${seconds.toFixed(1)} s`);
      show("not-live-seconds", kind !== "waiting");
      text("not-live-why", why);
    }
    show("holding", kind === "hold" || kind === "held");
    if (kind === "hold") {
      text("holding-word", "LAST IMAGE HOLD");
      text("holding-note", why);
    } else if (kind === "held") {
      text("holding-word", "HOLD");
      text("holding-note", `${Math.floor(seconds)} s old. Live goes on: Space.`);
    }
    if (was !== body.live && kind === "hold") this.#announce("Last image hold");
    if (was === "stale" && kind === "live") this.#announce("Live again");
  }

  #announce(said) {
    if (said !== this.#announced) text("announce", said);
    this.#announced = said;
  }
}

function sentence(why) { return why ? why[0].toUpperCase() + why.slice(1) : ""; }
