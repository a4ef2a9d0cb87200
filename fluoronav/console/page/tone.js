// SPDX-License-Identifier: Apache-2.0
// What grey does a pixel get? Window and level, and the ways to compare fluoroscopy with the DRR. Pure functions.

// Table of 256 packed RGBA greys of a window: level is the middle, width the span that becomes black to white.
export function windowTable(level, width) {
  const table = new Uint32Array(256);
  for (let v = 0; v < 256; v++) {
    const grey = Math.max(0, Math.min(255, Math.round(((v - level) / width + 0.5) * 255)));
    table[v] = packed(grey, grey, grey);
  }
  return table;
}

export function isIdentity(level, width) { return level === 127.5 && width === 255; }

// Fill `out` (Uint32Array of RGBA) from greys. `drr` may be null: then fluoroscopy alone.
export function compare(out, fluoro, drr, columns, table, check, amount) {
  const rows = out.length / columns;
  if (drr === null || check === "off") {
    for (let i = 0; i < out.length; i++) out[i] = table[fluoro[i]];
  } else if (check === "blend") {
    const b = Math.round(amount * 2.56), a = 256 - b;
    for (let i = 0; i < out.length; i++) {
      const grey = ((table[fluoro[i]] & 255) * a + drr[i] * b) >> 8;
      out[i] = packed(grey, grey, grey);
    }
  } else if (check === "checker") {
    const side = Math.max(8, Math.round((columns / 2) * (1 - amount / 110))); // few large to many small squares
    for (let r = 0, i = 0; r < rows; r++) {
      const odd = Math.floor(r / side) & 1;
      for (let c = 0; c < columns; c++, i++) {
        const grey = drr[i];
        out[i] = (Math.floor(c / side) & 1) === odd ? table[fluoro[i]] : packed(grey, grey, grey);
      }
    }
  } else if (check === "swipe") {
    const edge = Math.round((columns * amount) / 100);
    for (let r = 0, i = 0; r < rows; r++) {
      for (let c = 0; c < columns; c++, i++) {
        const grey = drr[i];
        out[i] = c === edge ? packed(143, 208, 255) : c > edge ? table[fluoro[i]] : packed(grey, grey, grey);
      }
    }
  } else edges(out, fluoro, drr, columns, rows, table, amount);
}

// Edges of the DRR (Sobel) in yellow over fluoroscopy; `amount` is how many of them are drawn.
function edges(out, fluoro, drr, columns, rows, table, amount) {
  const least = 24 + (100 - amount) * 2.4;
  for (let r = 0, i = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++, i++) {
      out[i] = table[fluoro[i]];
      if (r < 1 || c < 1 || r > rows - 2 || c > columns - 2) continue;
      const u = i - columns, d = i + columns;
      const gx = drr[u + 1] + 2 * drr[i + 1] + drr[d + 1] - drr[u - 1] - 2 * drr[i - 1] - drr[d - 1];
      const gy = drr[d - 1] + 2 * drr[d] + drr[d + 1] - drr[u - 1] - 2 * drr[u] - drr[u + 1];
      if (Math.abs(gx) + Math.abs(gy) > least) out[i] = packed(255, 225, 90);
    }
  }
}

function packed(r, g, b) { return (0xff000000 | (b << 16) | (g << 8) | r) >>> 0; }
