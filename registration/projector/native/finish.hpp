// SPDX-License-Identifier: Apache-2.0
// From the five sums of path.hpp to line integrals and their six derivatives. Included like direct.hpp.
//
// With w the ray from source to pixel in mm (C-arm frame), d = M w in index steps, L = |w| / |dz| the length in mm
// between two planes: p = L S. The left perturbation exp(xi) of the pose moves what is fixed to the C-arm by
// -(r x q + t) as seen from the volume. A shift t: ds = -M t, slopes unchanged. A turn r about the source: ds = 0,
// dd = -M (r x w), and L changes by -L ddz / dz since |w| does not. A turn about the isocenter is a turn about the
// source and the shift r x source.
//
// Sums are read by whole registers: F::W - 1 floats behind the last one must be there, whatever they hold.
static inline void store_some(float* to, F a, int n) {
    if (n >= F::W) return store(to, a);
    float all[F::W];
    store(all, a);
    for (int i = 0; i < n; ++i) to[i] = all[i];
}

static void write_row(const View& view, const Out& out, int row, int u0, int n, const float* s, const float* x0,
                      const float* x1, const float* y0, const float* y1) {
    const std::ptrdiff_t pixels = out.apart, first = static_cast<std::ptrdiff_t>(row - out.first) * view.w + u0;
    const F zero(0.f), one(1.f), wy(view.ay + row * view.pv), wz(-view.sdd), sod(view.sod);
    const auto times = [&](const float* m, F x, F y, F z) { return fma(F(m[0]), x, fma(F(m[1]), y, F(m[2]) * z)); };
    const auto turned = [&](int c, F x, F y, F z) { return fma(F(view.m[c]), x, fma(F(view.m[3 + c]), y, F(view.m[6 + c]) * z)); };
    for (int i = 0; i < n; i += F::W) {
        const int some = n - i;
        const F wx = fma(iota(static_cast<float>(u0 + i)), F(view.pu), F(view.ax));
        const F over = one / times(view.m + 6, wx, wy, wz);
        const F mx = times(view.m, wx, wy, wz) * over, my = times(view.m + 3, wx, wy, wz) * over;
        const F step = sqrt(fma(wx, wx, fma(wy, wy, wz * wz))) * max(over, zero - over);
        const F p = step * load(s + i);
        store_some(out.image + first + i, p, some);
        if (!out.jacobian) continue;
        // what a motion of the source by one index step along x, y, z does, and a change of the direction
        const F sx = step * load(x0 + i), sy = step * load(y0 + i), sz = zero - fma(mx, sx, my * sy), turn = step * over;
        const F ex = turn * load(x1 + i), ey = turn * load(y1 + i), ez = zero - fma(mx, ex, fma(my, ey, p * over));
        const F tx = zero - turned(0, sx, sy, sz), ty = zero - turned(1, sx, sy, sz), tz = zero - turned(2, sx, sy, sz);
        // the same for the direction in mm: g . dw, and dw = -(r x w), so a turn's derivative is g x w
        const F gx = turned(0, ex, ey, ez), gy = turned(1, ex, ey, ez), gz = turned(2, ex, ey, ez);
        float* const j = out.jacobian + first + i;
        store_some(j, fma(gy, wz, zero - fma(gz, wy, sod * ty)), some);
        store_some(j + pixels, fma(gz, wx, fma(sod, tx, zero - gx * wz)), some);
        store_some(j + 2 * pixels, fma(gx, wy, zero - gy * wx), some);
        store_some(j + 3 * pixels, tx, some), store_some(j + 4 * pixels, ty, some), store_some(j + 5 * pixels, tz, some);
    }
}
