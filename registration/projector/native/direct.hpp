// SPDX-License-Identifier: Apache-2.0
// The direct renderer: Joseph's method in float32, some pixels of a row side by side, four taps a plane.
//
// Included by each path_*.cpp inside a namespace of its own, after the vector type F (floats), I (integers) and M
// (masks) of that processor: F::W lanes. What bounds the speed is the gathers, four loads a lane and plane.
// Derivatives are those of the interpolant itself, so the Jacobian belongs exactly to the picture.

struct Sums {
    F s, x0, x1, y0, y1;
};

// The planes that may matter to any of the lanes: where the ray lies within the padded plane.
static inline void range_of(float p0, float slope, float low, float high, float& first, float& last) {
    if (slope > 1e-9f || slope < -1e-9f) {
        const float a = (low - p0) / slope, b = (high - p0) / slope;
        const float from = a < b ? a : b, to = a < b ? b : a;
        first = from > first ? from : first;
        last = to < last ? to : last;
    } else if (p0 < low || p0 > high) {
        last = first - 1;
    }
}

// Planes k0 .. k1 (may be empty) that lanes u0 .. u0 + n - 1 of a row of pixels cross, from the source on.
static inline void planes_of(const Planes& v, const View& view, int row, int u0, int n, int& k0, int& k1) {
    float low = 1e30f, high = -1e30f;
    for (int i = 0; i < n; ++i) {
        float d[3];
        for (int a = 0; a < 3; ++a) d[a] = view.base[a] + (u0 + i) * view.du[a] + row * view.dv[a];
        float first = 0, last = static_cast<float>(v.nz - 1);
        const float sz = view.source[2];
        if (d[2] > 0) first = sz > first ? sz : first;
        else last = sz < last ? sz : last;
        const float mx = d[0] / d[2], my = d[1] / d[2];
        range_of(view.source[0] - sz * mx, mx, -1.0f, static_cast<float>(v.nx), first, last);
        range_of(view.source[1] - sz * my, my, -1.0f, static_cast<float>(v.ny), first, last);
        if (first <= last) {
            low = first < low ? first : low;
            high = last > high ? last : high;
        }
    }
    k0 = low > high ? 0 : static_cast<int>(low);  // one plane more at either end: rounding must not lose one
    k1 = low > high ? -1 : static_cast<int>(high) + 1;
    if (k1 > v.nz - 1) k1 = v.nz - 1;
}

template <bool GRADIENT>
static inline Sums sums_of(const Planes& v, const View& view, F mx, F my, F first, F last, int k0, int k1) {
    const int pitch = v.nx + 2 * PAD;
    const std::ptrdiff_t plane = static_cast<std::ptrdiff_t>(pitch) * (v.ny + 2 * PAD);
    const F lowest(0.5f), right(v.nx + PAD + 0.5f), bottom(v.ny + PAD + 0.5f);
    const F sx(view.source[0] + PAD), sy(view.source[1] + PAD);
    Sums out{F(0.f), F(0.f), F(0.f), F(0.f), F(0.f)};
    const float* at = v.data + plane * k0;
    for (int k = k0; k <= k1; ++k, at += plane) {
        const F h(static_cast<float>(k) - view.source[2]), z(static_cast<float>(k));
        const F x = clamp(fma(h, mx, sx), lowest, right), y = clamp(fma(h, my, sy), lowest, bottom);
        const F fx = floor(x), fy = floor(y), tx = x - fx, ty = y - fy;
        const I index = to_int(fy) * I(pitch) + to_int(fx);
        const F f00 = gather(at, index), f01 = gather(at + 1, index);
        const F f10 = gather(at + pitch, index), f11 = gather(at + pitch + 1, index);
        const F d0 = f01 - f00, d1 = f11 - f10;
        const F r0 = fma(tx, d0, f00), r1 = fma(tx, d1, f10);
        const F dy = r1 - r0;
        const M inside = between(z, first, last);  // not behind the source, lane by lane
        out.s = add_if(inside, out.s, fma(ty, dy, r0));
        if (GRADIENT) {
            const F dx = fma(ty, d1 - d0, d0);
            out.x0 = add_if(inside, out.x0, dx);
            out.x1 = add_if(inside, out.x1, h * dx);
            out.y0 = add_if(inside, out.y0, dy);
            out.y1 = add_if(inside, out.y1, h * dy);
        }
    }
    return out;
}

static void write_row(const View& view, const Out& out, int row, int u0, int n, const float* s, const float* x0,
                      const float* x1, const float* y0, const float* y1);

static void direct(const Planes& v, const View& view, const Out& out, int row0, int row1) {
    float s[F::W], x0[F::W], x1[F::W], y0[F::W], y1[F::W];
    for (int row = row0; row < row1; ++row) {
        for (int u0 = 0; u0 < view.w; u0 += F::W) {
            const int n = view.w - u0 < F::W ? view.w - u0 : F::W;
            int k0, k1;
            planes_of(v, view, row, u0, n, k0, k1);
            const F u = iota(static_cast<float>(u0));
            F d[3] = {F(0.f), F(0.f), F(0.f)};
            for (int a = 0; a < 3; ++a) d[a] = fma(u, F(view.du[a]), F(view.base[a] + row * view.dv[a]));
            const F mx = d[0] / d[2], my = d[1] / d[2], start(view.source[2]), end = start + d[2] * F(1e6f);
            const F first = min(start, end), last = max(start, end);
            const Sums sums = out.jacobian ? sums_of<true>(v, view, mx, my, first, last, k0, k1)
                                           : sums_of<false>(v, view, mx, my, first, last, k0, k1);
            store(s, sums.s), store(x0, sums.x0), store(x1, sums.x1), store(y0, sums.y0), store(y1, sums.y1);
            write_row(view, out, row, u0, n, s, x0, x1, y0, y1);
        }
    }
}
