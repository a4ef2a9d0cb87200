// SPDX-License-Identifier: Apache-2.0
// From the grid of slopes to the detector: each pixel's slopes are a place on the grid, and its sums are interpolated
// there by cubic convolution (Keys 1981, a = -1/2) over 4 x 4 cells. Included like direct.hpp.

typedef float V8 __attribute__((vector_size(32), aligned(4), may_alias));
typedef float V4 __attribute__((vector_size(16), aligned(4), may_alias));

static inline void keys(float t, float* w) {
    const float t2 = t * t, t3 = t2 * t;
    w[0] = -0.5f * t3 + t2 - 0.5f * t;
    w[1] = 1.5f * t3 - 2.5f * t2 + 1;
    w[2] = -1.5f * t3 + 2 * t2 + 0.5f * t;
    w[3] = 0.5f * t3 - 0.5f * t2;
}

constexpr int STRIP = 64;  // pixels worked on together

// Places on the grid of pixels u0 .. u0 + n - 1 of a row.
static void places(const Sheared& s, int row, int u0, int n, float* x, float* y) {
    const View& v = s.view;
    float base[3];
    for (int a = 0; a < 3; ++a) base[a] = v.base[a] + row * v.dv[a];
    const float mx0 = static_cast<float>(s.grid.mx0), my0 = static_cast<float>(s.grid.my0);
    const float dx = static_cast<float>(1 / s.grid.dx), dy = static_cast<float>(1 / s.grid.dy);
    for (int i = 0; i < n; ++i) {
        const float u = static_cast<float>(u0 + i), over = 1 / (base[2] + u * v.du[2]);
        x[i] = ((base[0] + u * v.du[0]) * over - mx0) * dx;
        y[i] = ((base[1] + u * v.du[1]) * over - my0) * dy;
    }
}

static void warp(const Sheared& s, const Out& out, int row0, int row1) {
    const Grid& g = s.grid;
    float x[STRIP], y[STRIP], sums[5][STRIP];
    const float right = static_cast<float>(g.w - 3), bottom = static_cast<float>(g.h - 3), unit = s.volume.unit;
    for (int row = row0; row < row1; ++row) {
        for (int u0 = 0; u0 < s.view.w; u0 += STRIP) {
            const int n = s.view.w - u0 < STRIP ? s.view.w - u0 : STRIP;
            places(s, row, u0, n, x, y);
            for (int i = 0; i < n; ++i) {
                if (!(x[i] >= 1 && x[i] <= right && y[i] >= 1 && y[i] <= bottom)) {
                    for (auto& q : sums) q[i] = 0;
                    continue;
                }
                const int xi = static_cast<int>(x[i]), yi = static_cast<int>(y[i]);
                float wx[4], wy[4];
                keys(x[i] - static_cast<float>(xi), wx), keys(y[i] - static_cast<float>(yi), wy);
                const std::size_t at = static_cast<std::size_t>(yi - 1) * g.pitch + (xi - 1);
                if (out.jacobian) {
                    V8 total = {0, 0, 0, 0, 0, 0, 0, 0};
                    for (int r = 0; r < 4; ++r) {
                        const float* cell = s.cells + 8 * (at + static_cast<std::size_t>(r) * g.pitch);
                        const V8 line = wx[0] * *reinterpret_cast<const V8*>(cell) + wx[1] * *reinterpret_cast<const V8*>(cell + 8) +
                                        wx[2] * *reinterpret_cast<const V8*>(cell + 16) + wx[3] * *reinterpret_cast<const V8*>(cell + 24);
                        total += wy[r] * line;
                    }
                    for (int q = 0; q < 5; ++q) sums[q][i] = unit * total[q];
                } else {
                    const V4 weight = {wx[0], wx[1], wx[2], wx[3]};
                    V4 total = {0, 0, 0, 0};
                    for (int r = 0; r < 4; ++r)
                        total += wy[r] * *reinterpret_cast<const V4*>(s.sums + at + static_cast<std::size_t>(r) * g.pitch);
                    total *= weight;
                    sums[0][i] = unit * ((total[0] + total[1]) + (total[2] + total[3]));
                }
            }
            write_row(s.view, out, row, u0, n, sums[0], sums[1], sums[2], sums[3], sums[4]);
        }
    }
}
