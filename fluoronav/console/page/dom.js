// SPDX-License-Identifier: Apache-2.0
// Small words for the document; nothing is written that is already there.

const known = new Map();

export function byId(id) {
  if (!known.has(id)) known.set(id, document.getElementById(id));
  return known.get(id);
}

export function text(id, value) {
  const element = byId(id);
  if (element.textContent !== value) element.textContent = value;
}

export function show(id, visible) {
  const element = byId(id);
  if (element.hidden === visible) element.hidden = !visible;
}

export function pressed(id, on) { byId(id).setAttribute("aria-pressed", String(on)); }

export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

export function mm(value) { return Number.isFinite(value) ? `${value.toFixed(value < 99.95 ? 1 : 0)} mm` : "– mm"; }

// Seconds as h:mm:ss.mmm or hh:mm:ss.
export function clock(seconds, digits = 0) {
  const whole = Math.max(0, seconds);
  const pad = (n) => String(Math.floor(n)).padStart(2, "0");
  const rest = digits ? `.${String(Math.floor((whole % 1) * 10 ** digits + 1e-6)).padStart(digits, "0")}` : "";
  return `${pad(whole / 3600)}:${pad((whole / 60) % 60)}:${pad(whole % 60)}${rest}`;
}

let hiding = 0;

export function toast(message) {
  text("toast", message);
  show("toast", true);
  clearTimeout(hiding);
  hiding = setTimeout(() => show("toast", false), 4000);
}
