// SPDX-License-Identifier: Apache-2.0
// Is what is on the screen what is happening now? One pure rule, asked by the page's own timer.
//
// A picture is stale when no new one came for 0.5 s or 2.5 frame intervals, whichever is longer (pulsed fluoroscopy
// may run at 1 frame a second), or when the connection broke. The timer is the page's own: it works without a server.

export const LEAST_MS = 500;
export const INTERVALS = 2.5;
export const STATUS_MS = 2000; // a status older than this says nothing: it comes five times a second

// kind: live, stale, hold (the run ended), held (by the person), waiting, replay. All times by performance.now().
export function verdict({ now, newestAt, connected, brokenAt, status, statusAt, held, mode }) {
  const seconds = (now - (newestAt ?? brokenAt ?? now)) / 1000;
  if (!connected) return { kind: "stale", seconds, why: "Connection to fluoronav lost. Trying again." };
  if (mode === "replay") return { kind: "replay", seconds: 0, why: "" };
  if (newestAt === null) return { kind: "waiting", seconds, why: status?.source_note || "Waiting for the first picture." };
  if (held) return { kind: "held", seconds, why: "" };
  const limit = Math.max(LEAST_MS, INTERVALS * 1000 * (status?.frame_interval_s ?? 0));
  const late = now - newestAt > limit;
  if (late && now - statusAt > STATUS_MS) return { kind: "stale", seconds, why: "fluoronav does not answer." };
  if (late && (status?.source_state === "ended" || status?.source_state === "hold")) {
    return { kind: "hold", seconds, why: status.source_note };
  }
  if (status?.source_state === "lost") return { kind: "stale", seconds, why: status.source_note || "The source is lost." };
  if (late) return { kind: "stale", seconds, why: status?.source_note || "No new picture comes." };
  return { kind: "live", seconds, why: "" };
}
