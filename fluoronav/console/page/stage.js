// SPDX-License-Identifier: Apache-2.0
// Where are the picture and its layers? A stack of canvases, as large as the window allows.
//
// Each layer has a canvas of its own, so that switching one costs no way to the server. Where the outcome is not
// ACCEPTED the layers are wiped, not just hidden.

import { compare, isIdentity, windowTable } from "./tone.js";

const EXPLAINED = 0.7; // opacity of weights and uncertainty over the picture

export class Stage {
  #picture; #layerBox; #canvases = new Map(); #bitmaps = new Map(); #drawn = new Map();
  #pictures = {}; #greys = {}; #scratch = null; #shown = {};

  constructor(stage, stack, picture, layerBox, marks) {
    this.stage = stage;
    this.stack = stack;
    this.marks = marks;
    this.#picture = picture;
    this.#layerBox = layerBox;
    this.size = [512, 512]; // rows, columns
    this.face = "";
    new ResizeObserver(() => this.#fit()).observe(stage);
  }

  // One canvas a layer, in the order in which they are drawn.
  setLayers(layers) {
    for (const [name, canvas] of this.#canvases) {
      if (layers.some((layer) => layer.name === name)) continue;
      canvas.remove();
      this.#canvases.delete(name);
      this.#drawn.delete(name);
    }
    for (const { name } of layers) this.#canvas(name);
  }

  // Take a decoded message. Returns after the pixels are on the canvases.
  take(header, parts, view) {
    const same = header.size[0] === this.size[0] && header.size[1] === this.size[1];
    if (!same) this.#resize(header.size);
    this.#greys = {};
    const kept = this.keep(parts);
    for (const [name, bitmap] of Object.entries(this.#pictures)) if (kept[name] !== bitmap) bitmap.close();
    this.#pictures = kept;
    this.#shown = header.state.outcome === "ACCEPTED" ? header.layers : {};
    this.draw(view);
    this.#drawLayers();
  }

  // Keep the layers of a message, which are sent once a version; returns its pictures by name.
  keep(parts) {
    const pictures = {};
    for (const { part, bitmap } of parts) {
      if (part.kind === "picture") pictures[part.name] = bitmap;
      else {
        this.#bitmaps.get(part.name)?.bitmap?.close();
        this.#bitmaps.set(part.name, { ...part, bitmap });
      }
    }
    return pictures;
  }

  // Draw the picture as the person wants it seen.
  draw(view) {
    const base = this.#pictures.raw ? "raw" : "enhanced";
    const bitmap = this.#pictures[base];
    if (!bitmap) return;
    const drr = view.check === "off" ? null : this.#pictures.drr ?? null;
    const explained = this.#pictures[view.explain] ?? null;
    this.face = base === "raw" ? "RAW" : "ENHANCED";
    this.compared = drr !== null;
    this.explained = explained === null ? "" : view.explain;
    const context = this.#picture.getContext("2d", { alpha: false });
    const [rows, columns] = this.size;
    if (drr === null && isIdentity(view.level, view.window)) context.drawImage(bitmap, 0, 0);
    else {
      const image = context.createImageData(columns, rows);
      compare(new Uint32Array(image.data.buffer), this.#grey(base, bitmap), drr && this.#grey("drr", drr), columns,
        windowTable(view.level, view.window), view.check, view.amount);
      context.putImageData(image, 0, 0);
    }
    if (explained === null) return;
    context.globalAlpha = EXPLAINED;
    context.drawImage(explained, 0, 0, columns, rows); // of the frame's own pixels, which may be larger
    context.globalAlpha = 1;
  }

  // Visibility and opacity of each layer's canvas.
  switchLayers(view) {
    for (const [name, canvas] of this.#canvases) {
      const one = view.layers[name] ?? { visible: true, opacity: 1 };
      canvas.style.visibility = view.overlay && one.visible ? "inherit" : "hidden";
      canvas.style.opacity = one.opacity;
    }
  }

  // Whether any anatomy is on the screen now.
  overlaid(view) {
    return view.overlay && Object.keys(this.#shown).some((name) => view.layers[name]?.visible ?? true);
  }

  // Moves the layers while a nudge is being dragged; pixels of the picture and radians about (u, v).
  preview(du, dv, turn, zoom, about) {
    const [rows, columns] = this.size;
    const box = this.#layerBox.style;
    box.transformOrigin = `${(100 * (about[0] + 0.5)) / columns}% ${(100 * (about[1] + 0.5)) / rows}%`;
    box.transform = `translate(${(100 * du) / columns}%, ${(100 * dv) / rows}%) rotate(${turn}rad) scale(${zoom})`;
  }

  endPreview() { this.#layerBox.style.transform = ""; }

  // Pixel (u, v) of the picture under a pointer.
  pixel(event) {
    const box = this.stack.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * this.size[1] - 0.5,
      ((event.clientY - box.top) / box.height) * this.size[0] - 0.5];
  }

  // The picture as it is seen, layers over it, at its own resolution.
  composed(view) {
    const [rows, columns] = this.size;
    const canvas = new OffscreenCanvas(columns, rows);
    const context = canvas.getContext("2d");
    context.drawImage(this.#picture, 0, 0);
    for (const [name, layer] of this.#canvases) {
      const one = view.layers[name] ?? { visible: true, opacity: 1 };
      if (!view.overlay || !one.visible || !(name in this.#shown)) continue;
      context.globalAlpha = one.opacity;
      context.drawImage(layer, 0, 0, columns, rows);
    }
    context.globalAlpha = 1;
    context.drawImage(this.marks, 0, 0);
    return [canvas, context];
  }

  #drawLayers() {
    for (const name of Object.keys(this.#shown)) this.#canvas(name);
    for (const [name, canvas] of this.#canvases) {
      const version = this.#shown[name];
      const kept = this.#bitmaps.get(name);
      const wanted = version !== undefined && kept?.version === version ? version : null;
      if (this.#drawn.get(name) === wanted) continue;
      this.#drawn.set(name, wanted);
      if (wanted !== null && (canvas.height !== kept.size[0] || canvas.width !== kept.size[1])) {
        [canvas.height, canvas.width] = kept.size;
      }
      const context = canvas.getContext("2d");
      context.clearRect(0, 0, canvas.width, canvas.height);
      if (wanted !== null && kept.bitmap) context.drawImage(kept.bitmap, kept.box[1], kept.box[0]);
    }
  }

  #canvas(name) {
    let canvas = this.#canvases.get(name);
    if (!canvas) {
      canvas = document.createElement("canvas");
      [canvas.height, canvas.width] = this.size;
      canvas.dataset.layer = name;
      this.#layerBox.append(canvas);
      this.#canvases.set(name, canvas);
    }
    return canvas;
  }

  #grey(name, bitmap) {
    if (this.#greys[name]) return this.#greys[name];
    const [rows, columns] = this.size;
    this.#scratch ??= new OffscreenCanvas(columns, rows);
    [this.#scratch.height, this.#scratch.width] = this.size;
    const context = this.#scratch.getContext("2d", { willReadFrequently: true, alpha: false });
    context.drawImage(bitmap, 0, 0, columns, rows); // a DRR of another size covers the same field
    const { data } = context.getImageData(0, 0, columns, rows);
    const grey = new Uint8Array(rows * columns);
    for (let i = 0; i < grey.length; i++) grey[i] = data[4 * i];
    this.#greys[name] = grey;
    return grey;
  }

  #resize(size) {
    this.size = size;
    for (const canvas of [this.#picture, this.marks]) [canvas.height, canvas.width] = size;
    this.#fit();
  }

  #fit() {
    const [rows, columns] = this.size;
    const { width, height } = this.stage.getBoundingClientRect();
    const scale = Math.min(width / columns, height / rows);
    this.stack.style.width = `${columns * scale}px`;
    this.stack.style.height = `${rows * scale}px`;
    this.#picture.style.imageRendering = scale > 3 ? "pixelated" : "auto"; // small pictures keep their pixels
  }
}
