// SPDX-License-Identifier: Apache-2.0
// Which key does what? The same as the buttons; keys that a control needs stay with it.

export function listen(actions) {
  // A button or slider that the mouse used does not keep the keys: Space holds, arrows step.
  const release = (event) => {
    const { activeElement: used } = document;
    if (event.detail > 0 && used?.matches('button, input[type="checkbox"], input[type="range"]:not(#scrubber)')) used.blur();
  };
  document.addEventListener("click", release);
  document.addEventListener("change", (event) => { if (event.target.matches("select")) event.target.blur(); });
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
