// SPDX-License-Identifier: Apache-2.0
// Which key does what? The same as the buttons; keys that a control needs stay with it.

export function listen(actions) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    const { target } = event;
    if (target.matches('input[type="number"], select')) return;
    const arrow = event.key.startsWith("Arrow");
    if (arrow && target.matches('input[type="range"]:not(#scrubber)')) return;
    if (event.key === " " && target.matches('button, input[type="checkbox"]')) return; // presses what has the focus
    const name = arrow && event.shiftKey ? `Shift${event.key}` : event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const act = actions[name];
    if (!act || (event.repeat && !arrow)) return;
    if (act() !== false) event.preventDefault();
  });
}
