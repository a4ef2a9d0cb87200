// SPDX-License-Identifier: Apache-2.0
// What can be switched? Layers, raw or enhanced, window, comparison with the DRR, registration.

import { byId, make, pressed, show, text } from "./dom.js";

const AMOUNT = { off: "X-ray – DRR", blend: "X-ray – DRR", checker: "Square size", swipe: "DRR – X-ray", edges: "Edges" };

const HEADS = ["denoise", "stabilise", "superres"];
const EXPLAIN = ["weights", "uncertainty"];
const REST_MS = 200; // a slider's way is not told, only where the hand rests

export class Panel {
  #heads = null; // what the enhancement does, as the run says
  #resting = 0;

  constructor(store, actions) {
    this.store = store;
    this.actions = actions;
    this.layers = [];
    const on = (id, act) => { byId(id).onclick = act; };
    on("overlay", () => store.set({ overlay: !store.value.overlay }));
    on("raw", () => store.set({ raw: !store.value.raw }));
    on("enhanced", () => store.set({ raw: false }));
    on("window-reset", () => store.set({ window: 255, level: 127.5 }));
    on("measure", () => store.set({ measure: !store.value.measure, nudge: false }));
    on("nudge", () => store.set({ nudge: !store.value.nudge, measure: false }));
    on("hold", () => store.set({ hold: !store.value.hold }));
    for (const id of ["reregister", "search", "undo", "still", "full", "help"]) on(id, actions[id]);
    byId("window-slider").oninput = (event) => store.set({ window: Number(event.target.value) });
    byId("level-slider").oninput = (event) => store.set({ level: Number(event.target.value) });
    byId("check-amount").oninput = (event) => store.set({ amount: Number(event.target.value) });
    byId("tolerance").onchange = (event) => {
      const value = Number(event.target.value);
      if (event.target.checkValidity() && value > 0) actions.tolerance(value);
      else event.target.reportValidity();
    };
    for (const id of HEADS) on(id, () => this.#head({ [id]: !this.#heads[id] }));
    byId("contrast").oninput = (event) => {
      text("contrast-value", Number(event.target.value).toFixed(1));
      clearTimeout(this.#resting);
      this.#resting = setTimeout(() => {
        this.#resting = 0;
        this.#head({ contrast: Number(byId("contrast").value) });
      }, REST_MS);
    };
    for (const id of EXPLAIN) on(id, () => store.set({ explain: store.value.explain === id ? "off" : id }));
    this.checks = [...document.querySelectorAll("[data-check]")];
    for (const button of this.checks) button.onclick = () => store.set({ check: button.dataset.check });
    byId("check").addEventListener("keydown", (event) => this.#roam(event));
  }

  // The layers of the feed: a switch, its color, its opacity.
  setLayers(layers) {
    this.layers = layers;
    byId("layer-list").replaceChildren(...layers.map((layer, k) => {
      const box = make("input", { type: "checkbox", checked: layer.visible });
      box.onchange = () => this.store.setLayer(layer.name, { visible: box.checked });
      const swatch = make("span", { className: "swatch" });
      swatch.style.background = layer.color;
      const slider = make("input", { type: "range", min: 0, max: 100, value: Math.round(layer.opacity * 100) });
      slider.setAttribute("aria-label", `Opacity of ${layer.label}`);
      slider.oninput = () => this.store.setLayer(layer.name, { opacity: slider.value / 100 });
      const item = make("li", {}, make("label", { title: layer.label }, box, swatch, make("span", { textContent: layer.label })), slider);
      if (k < 6) item.firstChild.append(make("kbd", { textContent: String(k + 1) }));
      item.dataset.name = layer.name;
      return item;
    }));
    if (!layers.length) byId("overlay").disabled = true;
  }

  status(status) {
    const tolerance = byId("tolerance");
    if (status.tolerance_mm && document.activeElement !== tolerance) tolerance.value = status.tolerance_mm;
    this.#showHeads(status.heads ?? null);
  }

  // Tell the run what the enhancement shall do.
  #head(patch) {
    if (this.#heads && this.actions.heads({ ...this.#heads, ...patch })) this.#showHeads({ ...this.#heads, ...patch });
  }

  #showHeads(heads) {
    this.#heads = heads;
    for (const id of HEADS) {
      byId(id).disabled = heads === null;
      pressed(id, heads !== null && heads[id]);
    }
    byId("contrast").disabled = heads === null;
    if (heads === null || this.#resting || document.activeElement === byId("contrast")) return;
    byId("contrast").value = heads.contrast;
    text("contrast-value", heads.contrast.toFixed(1));
  }

  toggleLayer(k) {
    const layer = this.layers[k];
    if (layer) this.store.setLayer(layer.name, { visible: !this.store.value.layers[layer.name].visible });
  }

  // Show what is chosen.
  show(view) {
    pressed("raw", view.raw);
    pressed("enhanced", !view.raw);
    for (const id of ["overlay", "nudge", "measure", "hold"]) pressed(id, view[id]);
    for (const button of this.checks) {
      const on = button.dataset.check === view.check;
      button.setAttribute("aria-checked", String(on));
      button.tabIndex = on ? 0 : -1;
    }
    byId("window-slider").value = view.window;
    byId("level-slider").value = view.level;
    byId("check-amount").value = view.amount;
    byId("check-amount").disabled = view.check === "off";
    text("check-name", AMOUNT[view.check]);
    for (const item of byId("layer-list").children) {
      const one = view.layers[item.dataset.name];
      item.querySelector("[type=checkbox]").checked = one.visible;
      item.querySelector("[type=range]").value = Math.round(one.opacity * 100);
    }
    for (const id of EXPLAIN) pressed(id, view.explain === id);
    show("explain-legend", view.explain !== "off");
    if (view.explain === "weights") {
      byId("explain-legend").replaceChildren("A pixel is from", make("i", { className: "now" }), "now",
        make("i", { className: "surroundings" }), "its surroundings", make("i", { className: "before" }), "before");
    } else byId("explain-legend").replaceChildren("Standard deviation: 0", make("i", { className: "ramp" }), "that of one raw frame");
    document.body.dataset.nudge = view.nudge;
  }

  // Why layers, comparison or nudging cannot be had now.
  may(header, noCase, view) {
    const registered = header.state.outcome === "ACCEPTED" && !noCase;
    let why = "";
    if (noCase) why = "No case: there is nothing to draw.";
    else if (header.state.begins) why = "Not drawn yet: the first registration is under way.";
    else if (header.state.outcome === "LOST") why = "Not drawn: the registration is LOST.";
    else if (!registered) why = "Not drawn: the registration is UNCERTAIN.";
    else if (header.overlay.method === "none") why = "Not drawn: no renderer.";
    text("layers-why", why);
    show("layers-why", why !== "");
    byId("layer-list").toggleAttribute("data-off", why !== "");
    const noDrr = view.check !== "off" && header.missing.includes("drr");
    text("check-why", noDrr ? (registered ? "This case has no CT to make a DRR of." : "No DRR without a registration.") : "");
    show("check-why", noDrr);
    for (const id of ["nudge", "undo", "reregister", "search", "tolerance"]) byId(id).disabled = noCase;
  }

  // Arrow keys inside the group of checks, as in any radio group.
  #roam(event) {
    const k = this.checks.indexOf(event.target);
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (k < 0 || by === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    const next = this.checks[(k + by + this.checks.length) % this.checks.length];
    next.click();
    next.focus();
  }
}
