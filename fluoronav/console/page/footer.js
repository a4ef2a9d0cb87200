// SPDX-License-Identifier: Apache-2.0
// Am I recording, and does it keep up? Frame rate, time to the screen, drops, expected error of the last seconds.

import { byId, clock, mm, text } from "./dom.js";

const SPARK_S = 30;
const INK = { line: "#e6edf2", limit: "#aebbc6" };

export class Footer {
  #latencies = []; #errors = []; #drawnAt = 0;
  toleranceMm = 5;

  status(status) {
    const recording = byId("recording");
    const on = status.recording_s !== null;
    recording.toggleAttribute("data-on", on);
    recording.toggleAttribute("data-alarm", on && status.recording_note !== "");
    recording.querySelector(".word").textContent = on ? "REC" : status.mode === "replay" ? "replay" : "not recording";
    text("recording-time", on ? `${clock(status.recording_s)}${status.recording_note ? ` ${status.recording_note}` : ""}` : "");
    this.toleranceMm = status.tolerance_mm ?? this.toleranceMm;
    text("fps", Number.isFinite(status.fps) ? status.fps.toFixed(1) : "–");
    text("dropped", String(status.dropped));
    byId("latency-item").title = "From the frame's arrival to drawn on this page, median of the last 2 s. Until the step's end: "
      + `median ${status.latency_ms_p50?.toFixed(0) ?? "–"} ms, 95 % within ${status.latency_ms_p95?.toFixed(0) ?? "–"} ms.`;
  }

  // A new picture was drawn, `latencyMs` after its frame arrived.
  drawn(header, latencyMs, now, replay) {
    this.#latencies.push(latencyMs);
    if (this.#latencies.length > 30) this.#latencies.shift();
    const accepted = header.state.outcome === "ACCEPTED";
    this.#errors.push([now, accepted ? header.state.projected_mm : null]);
    while (this.#errors[0][0] < now - SPARK_S * 1000) this.#errors.shift();
    if (now - this.#drawnAt < 250) return;
    this.#drawnAt = now;
    const sorted = [...this.#latencies].sort((a, b) => a - b);
    text("latency", replay ? "–" : sorted[sorted.length >> 1].toFixed(0));
    const truth = header.truth?.target_projected_error_mm;
    text("truth", accepted && Number.isFinite(truth) ? `true ${mm(truth)}` : "");
    this.#spark(now);
  }

  #spark(now) {
    const canvas = byId("spark");
    const context = canvas.getContext("2d");
    const { width, height } = canvas;
    const top = Math.max(this.toleranceMm * 1.15, 0.1);
    const y = (value) => height - 2 - (Math.min(value, top) / top) * (height - 4);
    context.clearRect(0, 0, width, height);
    context.strokeStyle = INK.limit;
    context.setLineDash([3, 4]);
    line(context, [[0, y(this.toleranceMm)], [width, y(this.toleranceMm)]]);
    context.setLineDash([]);
    context.strokeStyle = INK.line;
    context.lineWidth = 2;
    let run = [];
    for (const [at, value] of [...this.#errors, [0, null]]) {
      if (value === null || !Number.isFinite(value)) { line(context, run); run = []; continue; }
      run.push([width * (1 - (now - at) / (SPARK_S * 1000)), y(value)]);
    }
  }
}

function line(context, points) {
  if (points.length < 2) return;
  context.beginPath();
  for (const [x, y] of points) context.lineTo(x, y);
  context.stroke();
}
