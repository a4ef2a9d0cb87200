// SPDX-License-Identifier: Apache-2.0
// See rows.hpp. Bound by the line sums: 75 additions a pixel from the first cache, 16 pixels at a time.
#include "rows.hpp"

namespace fluoronav {

FLUORONAV_LOOP
void innovation_row(const float* y, const float* m, const float* v, float frame, int cols, Short* __restrict out) {
#pragma GCC ivdep
    for (int x = 0; x < cols; ++x)
        out[x] = stepped((y[x] - m[x]) * kInnovationSteps / std::sqrt(frame + v[x]), kInnovationMost);
}

FLUORONAV_LOOP
void soft_row(const Short* a, const Short* b, const Short* c, int cols, Short* __restrict vertical, Short* __restrict out) {
    for (int x = 0; x < cols + 2; ++x) vertical[x] = Short(a[x - 1] + c[x - 1] + 2 * b[x - 1]);
    for (int x = 0; x < cols; ++x) out[x] = Short((vertical[x] + vertical[x + 2] + 2 * vertical[x + 1] + 2) >> 2);
}

constexpr int kTile = 512;  // pixels of a row at a time: eleven rows of them and their runs stay in the first cache
constexpr int kRun = kTile + 2 * kPad;

// Twelve lines, 15 degrees apart, of 11 pixels one apart along the longer axis (the taps are in ../reference.py): a
// straight line is never off by more than 0.7 pixels at the ends of its taps.
//
// Sums of neighbors in rows (-2 .. 2) and of rows in columns, from which lines of 11 are put together: a line close to
// a row is three runs of 4, 3 and 4 pixels, one at 30 degrees has pairs. 75 additions for the twelve lines, not 120.
struct Runs {
    Short pair[5][kRun], three[kRun], four[3][kRun];               // from x on, to the right
    Short rows2[4][kRun], rows3[kRun], rows4[2][kRun];              // rows -4, -2, 1, 3; -1; -5, 2: from there on, down
};

// `p` + k is row k, beginning kPad pixels left of the tile; so do the runs.
static FLUORONAV_INLINE void runs_of(const Short* const* p, int n, Runs& r) {
    for (int k = -2; k <= 2; ++k) {
        const Short* __restrict from = p[k];
        Short* __restrict to = r.pair[k + 2];
        for (int x = 0; x < n - 1; ++x) to[x] = Short(from[x] + from[x + 1]);
    }
    for (int k = -1; k <= 1; ++k) {
        const Short* __restrict from = r.pair[k + 2];
        Short* __restrict to = r.four[k + 1];
        for (int x = 0; x < n - 3; ++x) to[x] = Short(from[x] + from[x + 2]);
    }
    const Short *m5 = p[-5], *m4 = p[-4], *m3 = p[-3], *m2 = p[-2], *m1 = p[-1], *o = p[0];
    const Short *p1 = p[1], *p2 = p[2], *p3 = p[3], *p4 = p[4], *p5 = p[5];
#pragma GCC ivdep
    for (int x = 0; x < n - 2; ++x) r.three[x] = Short(r.pair[2][x] + o[x + 2]);
#pragma GCC ivdep
    for (int x = 0; x < n; ++x) {
        const Short a = Short(m4[x] + m3[x]), b = Short(m2[x] + m1[x]), c = Short(p1[x] + p2[x]), d = Short(p3[x] + p4[x]);
        r.rows2[0][x] = a, r.rows2[1][x] = b, r.rows2[2][x] = c, r.rows2[3][x] = d;
        r.rows3[x] = Short(m1[x] + o[x] + p1[x]);
        r.rows4[0][x] = Short(m5[x] + a + m2[x]);
        r.rows4[1][x] = Short(p2[x] + d + p5[x]);
    }
}

static FLUORONAV_INLINE Short larger(Short a, Short b) { return a > b ? a : b; }
static FLUORONAV_INLINE Short smaller(Short a, Short b) { return a < b ? a : b; }

// The line whose sum of 11 is largest in magnitude, for `n` pixels.
static FLUORONAV_INLINE void best_of_runs(const Short* const* p, const Runs& r, int n, Short* __restrict best) {
    Short high[kTile], low[kTile];
    const Short *m5 = p[-5] + kPad, *m4 = p[-4] + kPad, *m3 = p[-3] + kPad, *m2 = p[-2] + kPad, *m1 = p[-1] + kPad;
    const Short* o = p[0] + kPad;
    const Short *p1 = p[1] + kPad, *p2 = p[2] + kPad, *p3 = p[3] + kPad, *p4 = p[4] + kPad, *p5 = p[5] + kPad;
    const Short *up2 = r.pair[0] + kPad, *up1 = r.pair[1] + kPad, *down1 = r.pair[3] + kPad, *down2 = r.pair[4] + kPad;
    const Short *four_up = r.four[0] + kPad, *four = r.four[1] + kPad, *four_down = r.four[2] + kPad, *three = r.three + kPad;
#pragma GCC ivdep
    for (int x = 0; x < n; ++x) {
        const Short level = Short(four[x - 5] + three[x - 1] + four[x + 2]);
        const Short falling = Short(four_up[x - 5] + three[x - 1] + four_down[x + 2]);
        const Short rising = Short(four_down[x - 5] + three[x - 1] + four_up[x + 2]);
        const Short falling30 = Short((m3[x - 5] + up2[x - 4]) + (up1[x - 2] + o[x]) + (down1[x + 1] + down2[x + 3]) + p3[x + 5]);
        const Short rising30 = Short((p3[x - 5] + down2[x - 4]) + (down1[x - 2] + o[x]) + (up1[x + 1] + up2[x + 3]) + m3[x + 5]);
        high[x] = larger(larger(larger(level, falling), larger(rising, falling30)), rising30);
        low[x] = smaller(smaller(smaller(level, falling), smaller(rising, falling30)), rising30);
    }
#pragma GCC ivdep
    for (int x = 0; x < n; ++x) {
        const Short falling45 = Short(((m5[x - 5] + m4[x - 4]) + (m3[x - 3] + m2[x - 2])) +
                                      ((m1[x - 1] + o[x]) + (p1[x + 1] + p2[x + 2])) +
                                      ((p3[x + 3] + p4[x + 4]) + p5[x + 5]));
        const Short rising45 = Short(((m5[x + 5] + m4[x + 4]) + (m3[x + 3] + m2[x + 2])) +
                                     ((m1[x + 1] + o[x]) + (p1[x - 1] + p2[x - 2])) +
                                     ((p3[x - 3] + p4[x - 4]) + p5[x - 5]));
        high[x] = larger(high[x], larger(falling45, rising45));
        low[x] = smaller(low[x], smaller(falling45, rising45));
    }
    const Short *a = r.rows2[0] + kPad, *b = r.rows2[1] + kPad, *c = r.rows2[2] + kPad, *d = r.rows2[3] + kPad;
    const Short *top = r.rows4[0] + kPad, *middle = r.rows3 + kPad, *bottom = r.rows4[1] + kPad;
#pragma GCC ivdep
    for (int x = 0; x < n; ++x) {
        const Short upright = Short(top[x] + middle[x] + bottom[x]);
        const Short left = Short(top[x - 1] + middle[x] + bottom[x + 1]), right = Short(top[x + 1] + middle[x] + bottom[x - 1]);
        const Short left60 = Short((m5[x - 3] + a[x - 2]) + (b[x - 1] + o[x]) + (c[x + 1] + d[x + 2]) + p5[x + 3]);
        const Short right60 = Short((m5[x + 3] + a[x + 2]) + (b[x + 1] + o[x]) + (c[x - 1] + d[x - 2]) + p5[x - 3]);
        const Short most = larger(high[x], larger(larger(upright, left), larger(right, larger(left60, right60))));
        const Short least = smaller(low[x], smaller(smaller(upright, left), smaller(right, smaller(left60, right60))));
        best[x] = most >= Short(-least) ? most : least;
    }
}

FLUORONAV_LOOP
void line_sums(const Short* const* near, int cols, Short* __restrict best) {
    Runs runs;
    for (int x0 = 0; x0 < cols; x0 += kTile) {
        const int n = std::min(kTile, cols - x0);
        const Short* rows[2 * kReach + 1];
        for (int k = 0; k <= 2 * kReach; ++k) rows[k] = near[k] + x0 - kPad;
        runs_of(rows + kReach, n + 2 * kPad, runs);
        best_of_runs(rows + kReach, runs, n, best + x0);
    }
}

FLUORONAV_LOOP
void detail_row(const float* m, const float* base, int cols, Short* __restrict out) {
#pragma GCC ivdep
    for (int x = 0; x < cols; ++x) out[x] = stepped((m[x] - base[x]) * kDetailSteps, kDetailMost);
}

FLUORONAV_LOOP
void binomial_row(const float* const* near, int apart, int cols, float* __restrict vertical, float* __restrict out) {
    const float *a = near[0], *b = near[1], *c = near[2], *d = near[3], *e = near[4];
    const int side = 2 * apart;
    for (int x = 0; x < cols + 2 * side; ++x) {
        const int i = x - side;
        vertical[x] = 0.0625f * (a[i] + e[i]) + 0.25f * (b[i] + d[i]) + 0.375f * c[i];
    }
    const float *v0 = vertical, *v1 = v0 + apart, *v2 = v1 + apart, *v3 = v2 + apart, *v4 = v3 + apart;
    for (int x = 0; x < cols; ++x) out[x] = 0.0625f * (v0[x] + v4[x]) + 0.25f * (v1[x] + v3[x]) + 0.375f * v2[x];
}

}  // namespace fluoronav
