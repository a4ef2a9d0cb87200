// SPDX-License-Identifier: Apache-2.0
// How was this picture made, and when? The corners, as on a C-arm's display.

import { byId, clock, make, text } from "./dom.js";

const ALARM = "alarm: "; // how the pipeline marks what failed, not what was late

export function corners(header, replay) {
  const { angles, carm, exposure } = header;
  text("primary-name", (angles?.primary_deg ?? 0) < 0 ? "RAO" : "LAO");
  text("secondary-name", (angles?.secondary_deg ?? 0) < 0 ? "CAU" : "CRA");
  text("primary", angles ? Math.abs(angles.primary_deg).toFixed(1) : "–");
  text("secondary", angles ? Math.abs(angles.secondary_deg).toFixed(1) : "–");
  text("sdd", carm ? carm.sdd_mm.toFixed(0) : "–");
  text("clock", replay ? "REPLAY" : time(header));
  text("number", `#${header.index}`);
  text("kvp", stated(exposure.kvp, 0, "kV"));
  text("ma", stated(exposure.ma, 0, "mA"));
  text("ms", stated(exposure.ms, 1, "ms"));
  text("dose", stated(exposure.dose_ugy, 2, "µGy/frame"));
  badges(header.badges.filter((badge) => badge !== "no case"));
}

// What the chain left out of this frame, of what makes a picture an enhanced one.
const LEFT_OUT = /^(motion|denoise|uncertainty|contrast) (skipped|failed)/;

// Every enhanced or overlaid picture says so on its face, and what was left out.
export function face(view, stage, header) {
  const heads = header?.heads;
  const words = [stage.face];
  if (stage.face === "ENHANCED")
    for (const badge of header?.badges ?? []) {
      const left = LEFT_OUT.exec(badge);
      if (left) words[0] += ` WITHOUT ${left[1].toUpperCase()}`;
    }
  if (stage.face === "ENHANCED" && heads?.contrast > 0) words.push(`CONTRAST ${heads.contrast.toFixed(1)}`);
  if (stage.face && heads?.superres) words.push("FINER PIXELS");
  if (stage.face && heads?.stabilise) words.push("STABILISED");
  if (stage.explained) words.push(stage.explained.toUpperCase());
  if (stage.compared) words.push({ blend: "BLEND", checker: "CHECKER", swipe: "SWIPE", edges: "EDGES" }[view.check] + " DRR");
  if (stage.face && stage.overlaid(view) && document.body.dataset.live !== "stale") words.push("OVERLAY");
  text("face", words.filter(Boolean).join("\n+ "));
  byId("face").dataset.face = stage.face;
  text("window", String(Math.round(view.window)));
  text("level", String(Math.round(view.level)));
}

function time(header) {
  if (header.time_from === "run") return clock(Number(header.time_ns) / 1e9, 3);
  const ms = Number(BigInt(header.time_ns) / 1000000n);
  const at = new Date(ms);
  return clock(at.getHours() * 3600 + at.getMinutes() * 60 + at.getSeconds() + (ms % 1000) / 1000, 3);
}

function stated(value, digits, unit) {
  if (value === null || value === undefined) return "";
  const shown = Number.isInteger(value) ? String(value) : value.toFixed(Math.max(digits, value < 1 ? 2 : 0));
  return `${shown} ${unit}`;
}

let said = null;

function badges(list) {
  const now = list.join("\n");
  if (now === said) return;
  said = now;
  byId("badges").replaceChildren(...list.map((badge) => {
    const alarm = badge.startsWith(ALARM);
    const item = make("li", { textContent: alarm ? badge.slice(ALARM.length) : badge });
    if (alarm || badge.includes(" failed and is off")) item.dataset.alarm = "";
    return item;
  }));
}
