// SPDX-License-Identifier: Apache-2.0
// Weighted moments of two pictures (or of their gradients) and of a Jacobian over small tiles, in one pass.
//
// A tile is at most 16 x 16 pixels and lies within one cell of every grid that is asked about, so whatever is wanted a
// cell follows from sums over tiles, and nothing has to be known beforehand: means are subtracted afterwards,
//   sum W (a - ma) (b - mb) = sum W a b - (sum W a) (sum W b) / sum W,
// which float32 stands for gradients (their mean is near zero) and for pictures less a pivot. With a, b the channels,
// W the weight, g the channels of the Jacobian's n columns, a tile yields
//   sum W; for each channel sum W a, sum W b, sum W g (n); over all channels sum W a^2, W b^2, W a b, W a g (n),
//   W b g (n), W g g' (n (n + 1) / 2).
//
// What bounds the speed: 21 products a pixel and channel for six parameters. A tile's channels (12 KB) stay in the
// first cache, products are taken in blocks of 3 x 3 columns, nine sums in registers for seven loads. 128 x 128 pixels,
// six columns: 0.08 ms on one thread with AVX-512.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <vector>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define FLUORONAV_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FLUORONAV_CLONES
#endif
#define FLUORONAV_INLINE inline __attribute__((always_inline))

namespace correlation {

constexpr int LANES = 16, MOST_ROWS = 16, MOST_COLUMNS = 96;
typedef float V __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

// One picture, or one column of a Jacobian: rows of `stride` floats.
struct Pictures {
    const float *moving, *fixed, *weight, *jacobian;  // (h, w) each, jacobian (n, h, w) or null
    int h, w, n;
    bool gradient;
    float pivot_moving, pivot_fixed;  // taken off the pictures where no gradient is asked for

    int channels() const { return gradient ? 2 : 1; }
    int height() const { return gradient ? h - 2 : h; }  // of a channel: central differences have no border
    int width() const { return gradient ? w - 2 : w; }
};

// Where a tile's sums stand.
struct Layout {
    int n, channels;
    int a(int c) const { return 1 + c; }
    int b(int c) const { return 1 + channels + c; }
    int aa() const { return 1 + 2 * channels; }
    int bb() const { return aa() + 1; }
    int ab() const { return aa() + 2; }
    int g(int c, int i) const { return aa() + 3 + c * n + i; }
    int ag(int i) const { return aa() + 3 + channels * n + i; }
    int bg(int i) const { return ag(i) + n; }
    int gg(int i, int j) const { return aa() + 3 + (channels + 2) * n + i * (i + 1) / 2 + j; }  // j <= i
    int size() const { return gg(n, 0); }
};

struct Tile {
    int y, x, rows, cols;
};

FLUORONAV_INLINE V some(const float* p, int n) {
    if (n == LANES) return *reinterpret_cast<const V*>(p);
    V out = {};
    std::memcpy(&out, p, static_cast<std::size_t>(n) * sizeof(float));
    return out;
}

FLUORONAV_INLINE float total(V v) {
    float lane[LANES];
    std::memcpy(lane, &v, sizeof lane);
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; ++i) lane[i] += lane[i + half];
    return lane[0];
}

FLUORONAV_INLINE V smaller(V a, V b) { return a < b ? a : b; }

// Channel c at a row of a tile: the picture itself, or its central difference along x (c = 0) or y (c = 1).
FLUORONAV_INLINE V channel(const Pictures& s, const float* picture, int y, int x, int n, int c) {
    const float* at = picture + static_cast<std::ptrdiff_t>(y) * s.w + x;
    if (!s.gradient) return some(at, n);
    return c == 0 ? some(at + s.w + 2, n) - some(at + s.w, n) : some(at + 2 * s.w + 1, n) - some(at + 1, n);
}

// A difference is worth no more than the worst pixel that it touches.
FLUORONAV_INLINE V weight_of(const Pictures& s, int y, int x, int n) {
    const float* at = s.weight + static_cast<std::ptrdiff_t>(y) * s.w + x;
    if (!s.gradient) return some(at, n);
    const float *mid = at + s.w, *low = mid + s.w;
    return smaller(smaller(smaller(some(mid, n), some(mid + 2, n)), smaller(some(at + 1, n), some(low + 1, n))), some(mid + 1, n));
}

// The products of columns i .. i + 2 with j .. j + 2, rows of all channels one after the other.
FLUORONAV_INLINE void products(const V* w, const V* g, int rows, int i, int j, const Layout& at, double* out) {
    V s00 = {}, s01 = {}, s02 = {}, s10 = {}, s11 = {}, s12 = {}, s20 = {}, s21 = {}, s22 = {};
    const V *a = g + i * 2 * MOST_ROWS, *b = g + j * 2 * MOST_ROWS;
    constexpr int next = 2 * MOST_ROWS;
    for (int c = 0; c < at.channels; ++c)
        for (int r = 0; r < rows; ++r) {
            const int k = c * MOST_ROWS + r;
            const V b0 = b[k], b1 = b[k + next], b2 = b[k + 2 * next];
            const V a0 = w[r] * a[k], a1 = w[r] * a[k + next], a2 = w[r] * a[k + 2 * next];
            s00 += a0 * b0, s01 += a0 * b1, s02 += a0 * b2;
            s10 += a1 * b0, s11 += a1 * b1, s12 += a1 * b2;
            s20 += a2 * b0, s21 += a2 * b1, s22 += a2 * b2;
        }
    const V sums[9] = {s00, s01, s02, s10, s11, s12, s20, s21, s22};
    for (int p = 0; p < 3; ++p)
        for (int q = 0; q < 3; ++q)
            if (j + q <= i + p) out[at.gg(i + p, j + q)] = total(sums[3 * p + q]);
}

// The sums of one tile, `out` in the order of Layout. all: else only those that `moving` enters, the others stand in `out`.
FLUORONAV_CLONES inline void sum_tile(const Pictures& s, const Tile& t, bool all, double* out) {
    const Layout at{s.n, s.channels()};
    V w[MOST_ROWS], a[2][MOST_ROWS], b[2][MOST_ROWS];
    V mass = {}, aa = {}, bb = {}, ab = {};
    for (int r = 0; r < t.rows; ++r) w[r] = weight_of(s, t.y + r, t.x, t.cols), mass += w[r];
    out[0] = total(mass);
    for (int c = 0; c < at.channels; ++c) {
        V sa = {}, sb = {};
        for (int r = 0; r < t.rows; ++r) {
            a[c][r] = channel(s, s.moving, t.y + r, t.x, t.cols, c) - s.pivot_moving;
            b[c][r] = channel(s, s.fixed, t.y + r, t.x, t.cols, c) - s.pivot_fixed;
            const V wa = w[r] * a[c][r], wb = w[r] * b[c][r];
            sa += wa, sb += wb, aa += wa * a[c][r], bb += wb * b[c][r], ab += wa * b[c][r];
        }
        out[at.a(c)] = total(sa), out[at.b(c)] = total(sb);
    }
    out[at.aa()] = total(aa), out[at.bb()] = total(bb), out[at.ab()] = total(ab);
    if (!s.n) return;
    if (!all) {
        for (int i = 0; i < s.n; ++i) {
            const float* plane = s.jacobian + static_cast<std::ptrdiff_t>(i) * s.h * s.w;
            V ag = {};
            for (int c = 0; c < at.channels; ++c)
                for (int r = 0; r < t.rows; ++r) ag += w[r] * channel(s, plane, t.y + r, t.x, t.cols, c) * a[c][r];
            out[at.ag(i)] = total(ag);
        }
        return;
    }
    V g[MOST_COLUMNS * 2 * MOST_ROWS];
    for (int i = 0; i < s.n; ++i) {
        const float* plane = s.jacobian + static_cast<std::ptrdiff_t>(i) * s.h * s.w;
        V ag = {}, bg = {};
        for (int c = 0; c < at.channels; ++c) {
            V sg = {}, *line = g + (i * 2 + c) * MOST_ROWS;
            for (int r = 0; r < t.rows; ++r) {
                const V gr = channel(s, plane, t.y + r, t.x, t.cols, c), wg = w[r] * gr;
                line[r] = gr;
                sg += wg, ag += wg * a[c][r], bg += wg * b[c][r];
            }
            out[at.g(c, i)] = total(sg);
        }
        out[at.ag(i)] = total(ag), out[at.bg(i)] = total(bg);
    }
    for (int i = 0; i < s.n; i += 3)
        for (int j = 0; j <= i; j += 3) products(w, g, t.rows, i, j, at, out);
}

}  // namespace correlation
