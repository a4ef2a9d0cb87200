// SPDX-License-Identifier: Apache-2.0
// What has the person chosen? One small store; who cares subscribes.

export class Store {
  #subscribers = [];

  constructor() {
    this.value = {
      raw: false, overlay: true, layers: {}, // name -> {visible, opacity}
      window: 255, level: 127.5, check: "off", amount: 50,
      explain: "off", // weights, uncertainty
      hold: false, nudge: false, measure: false,
    };
  }

  subscribe(changed) { this.#subscribers.push(changed); }

  set(patch) {
    const before = this.value;
    this.value = { ...before, ...patch };
    for (const changed of this.#subscribers) changed(this.value, before);
  }

  setLayer(name, patch) {
    const { layers } = this.value;
    this.set({ layers: { ...layers, [name]: { ...layers[name], ...patch } } });
  }
}
