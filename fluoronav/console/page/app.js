// SPDX-License-Identifier: Apache-2.0
// The page, wired up: pictures come in, switches go out, a timer watches whether it is all live.

import { Banner } from "./banner.js";
import { corners, face } from "./corners.js";
import { byId, show, text, toast } from "./dom.js";
import { Footer } from "./footer.js";
import { listen } from "./keys.js";
import { Link } from "./link.js";
import { verdict } from "./liveness.js";
import { Panel } from "./panel.js";
import { Pointer } from "./pointer.js";
import { Replay } from "./replay.js";
import { Stage } from "./stage.js";
import { still } from "./still.js";
import { Store } from "./store.js";

const now = () => performance.now();
const store = new Store();
const stage = new Stage(byId("stage"), byId("stack"), byId("picture"), byId("layers"), byId("marks"));
const banner = new Banner(), footer = new Footer();
let mode = "live", header = null, status = null, statusAt = 0, newestAt = null, newestSeq = 0, brokenAt = now();

const link = new Link({ onPicture: take, onText: heard, onChange: connection });
const send = (message) => {
  const sent = link.send(message);
  if (!sent) toast("Not connected: nothing was sent.");
  return sent;
};
const command = (kind, value) => send(value === undefined ? { type: "command", kind } : { type: "command", kind, value });
const replay = new Replay(send);
const pointer = new Pointer(stage, store, send, () => header);

const actions = {
  reregister: () => command("reregister") && toast("Registering from here …"),
  search: () => command("reregister", "search") && toast("Searching anew …"),
  undo: () => command("undo"),
  tolerance: (value) => command("tolerance", value) && toast(`Tolerance ${value} mm from the next picture on.`),
  heads: (value) => command("heads", value),
  still: async () => header && toast(`Still saved: ${await still(stage, store.value, header, status, document.body.dataset.live, pointer.length().mm)}`),
  full: () => (document.fullscreenElement ? document.exitFullscreen() : document.documentElement.requestFullscreen()),
  help: () => byId("keys").showModal(),
};
const panel = new Panel(store, actions);

const live = (act) => () => (mode === "live" ? act() : false);
const arrow = (du, dv) => () => {
  if (store.value.nudge) pointer.byKeys(du, dv);
  else if (mode === "replay" && du) replay.step(du);
  else return false;
  return true;
};
listen({
  " ": () => (mode === "replay" ? replay.toggle() : byId("hold").click()),
  r: () => byId("raw").click(), o: () => byId("overlay").click(), m: () => byId("measure").click(),
  b: () => store.set({ check: store.value.check === "blend" ? "off" : "blend" }),
  e: () => byId("weights").click(), u: () => byId("uncertainty").click(),
  g: live(actions.reregister), z: live(actions.undo), n: live(() => byId("nudge").click()),
  s: actions.still, f: actions.full, "?": actions.help,
  ArrowLeft: arrow(-1, 0), ArrowRight: arrow(1, 0), ArrowUp: arrow(0, -1), ArrowDown: arrow(0, 1),
  ShiftArrowLeft: () => mode === "replay" && replay.event(-1), ShiftArrowRight: () => mode === "replay" && replay.event(1),
  ...Object.fromEntries([1, 2, 3, 4, 5, 6].map((k) => [String(k), () => panel.toggleLayer(k - 1)])),
});

store.subscribe((view, before) => {
  if (view.raw !== before.raw || (view.check === "off") !== (before.check === "off") || view.hold !== before.hold
    || view.explain !== before.explain) look();
  if (view.layers !== before.layers) tellLayers(view.layers, before.layers);
  if (view.measure !== before.measure) pointer.clearMeasure();
  panel.show(view);
  stage.switchLayers(view);
  if (header) {
    stage.draw(view);
    panel.may(header, noCase(), view);
  }
  face(view, stage, header);
  watch();
});

// A picture came: draw it with all its words in one go, then let the next one come.
function take(next, parts) {
  return new Promise((done) => {
    requestAnimationFrame(() => {
      if (store.value.hold && next.seq !== newestSeq) { // was under way when the person held the one before
        stage.keep(parts);
        done();
        return;
      }
      const fresh = next.seq !== newestSeq && !next.decisions.includes("held");
      const repeated = next.seq === newestSeq;
      header = next;
      newestSeq = next.seq;
      const view = store.value;
      stage.take(header, parts, view);
      stage.switchLayers(view);
      const at = now();
      if (fresh || newestAt === null) newestAt = at - Math.max(0, link.serverNow() - header.seen_ms);
      words(at);
      if (!repeated) {
        pointer.took(header);
        footer.drawn(header, link.serverNow() - header.arrived_ms, at, mode === "replay");
      }
      watch();
      done();
    });
  });
}

// What is written over and beside the picture.
function words(at) {
  banner.state(header.state, noCase(), at);
  corners(header, mode === "replay");
  face(store.value, stage, header);
  panel.may(header, noCase(), store.value);
}

function heard(message) {
  const hear = {
    hello() {
      mode = message.mode;
      document.body.dataset.mode = mode;
      const layers = Object.fromEntries(message.layers.map(({ name, visible, opacity }) => [name, { visible, opacity }]));
      stage.setLayers(message.layers);
      panel.setLayers(message.layers);
      store.set({ layers: { ...layers, ...kept(layers) }, hold: false });
      if (mode === "replay") replay.load();
      if (header) words(now());
    },
    status() {
      status = message;
      statusAt = now();
      text("case-name", status.case_name || "NO CASE");
      document.title = `${status.case_name || "no case"} · fluoronav`;
      footer.status(status);
      panel.status(status);
      if (mode === "replay") replay.status(status);
      if (!header && !status.case_name) banner.state({ outcome: "LOST", word: "NO CASE", why: "" }, true, now());
    },
    refused() { toast(message.text); },
    done() {},
  };
  hear[message.type]?.();
}

// What the person switched stays switched when the program starts anew or the run becomes its recording.
function kept(layers) {
  return Object.fromEntries(Object.entries(store.value.layers).filter(([name]) => name in layers));
}

function connection(connected) {
  if (connected) {
    newestSeq = 0; // another start of the program counts anew
    look();
  } else brokenAt = now();
  watch();
}

// Which pictures this page needs.
function look() {
  const { raw, check, explain, hold } = store.value;
  const pictures = [raw ? "raw" : "enhanced", ...(check === "off" ? [] : ["drr"]), ...(explain === "off" ? [] : [explain])];
  link.send({ type: "view", pictures, hold });
}

let telling = 0;
const untold = new Set();

// Layer switches are recorded, a slider's way not: what was changed is told when the hand rests.
function tellLayers(layers, before) {
  if (mode !== "live") return;
  for (const [name, one] of Object.entries(layers)) if (before[name] && one !== before[name]) untold.add(name);
  clearTimeout(telling);
  telling = setTimeout(() => {
    for (const name of untold) link.send({ type: "command", kind: "layer", value: { name, ...store.value.layers[name] } });
    untold.clear();
  }, 300);
}

function noCase() { return status?.case_name === "" || (header?.badges.includes("no case") ?? false); }

function watch() {
  const was = document.body.dataset.live;
  banner.live(verdict({ now: now(), newestAt, connected: link.connected, brokenAt, status, statusAt,
    held: store.value.hold, mode }));
  if (was === document.body.dataset.live) return;
  face(store.value, stage, header);
  if (document.body.dataset.live === "stale") byId("keys").close(); // nothing lies over an alarm
}

setInterval(watch, 100);
show("not-live", false);
panel.show(store.value);
watch();
