// SPDX-License-Identifier: Apache-2.0
// What was on the screen? A PNG of the picture as seen, its words burned in, and a JSON that says all of it.

import { byId, make } from "./dom.js";

const BAR = 0.045; // height of the line of words, as a part of the picture

export async function still(stage, view, header, status, live, length) {
  const [picture, on] = stage.composed(view);
  const high = Math.max(18, Math.round(picture.height * BAR));
  const out = new OffscreenCanvas(picture.width, picture.height + 2 * high);
  const context = out.getContext("2d");
  context.fillRect(0, 0, out.width, out.height);
  context.drawImage(on.canvas, 0, 0);
  const noted = live === "live" ? "" : { hold: "LAST IMAGE HOLD", held: "HOLD", replay: "REPLAY" }[live] ?? "NOT LIVE";
  const lines = [
    [words("face"), `${words("state-word")} ${words("state-bound")}`, noted],
    [status?.case_name ?? "", `${words("clock")} #${header.index}`, "research use only"],
  ];
  lines.forEach((line, k) => write(context, line.filter(Boolean).join("   "), picture.height + (k + 0.68) * high, high, out.width));
  const name = `fluoronav-${header.index}-${header.time_ns}`;
  save(await out.convertToBlob({ type: "image/png" }), `${name}.png`);
  const facts = { still: `${name}.png`, case: status?.case_name ?? "", live, face: words("face"), view,
    measured_mm: length, picture: "8 bit, JPEG quality 92; the exact pixels are in the session", ...kept(header) };
  save(new Blob([JSON.stringify(facts, null, 1)], { type: "application/json" }), `${name}.json`);
  return `${name}.png`;
}

function words(id) { return byId(id).textContent.replace(/\s+/g, " "); }

function kept({ parts, layers, seen_ms, arrived_ms, seq, moved, missing, ...facts }) { return facts; }

function write(context, line, y, high, width) {
  context.fillStyle = "#ffffff";
  let size = high * 0.56;
  context.font = `${size}px system-ui, sans-serif`;
  size *= Math.min(1, (width - 16) / context.measureText(line).width);
  context.font = `${size}px system-ui, sans-serif`;
  context.fillText(line, 8, y);
}

function save(blob, name) {
  const address = URL.createObjectURL(blob);
  make("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}
