// SPDX-License-Identifier: Apache-2.0
// From the five sums of path.hpp to line integrals and their six derivatives. Included like direct.hpp.
//
// With w the ray from source to pixel in mm (C-arm frame), d = M w in index steps, L = |w| / |dz| the length in mm
// between two planes: p = L S. The left perturbation exp(xi) of the pose moves what is fixed to the C-arm by
// -(r x q + t) as seen from the volume. A shift t: ds = -M t, slopes unchanged. A turn r about the source: ds = 0,
// dd = -M (r x w), and L changes by -L ddz / dz since |w| does not. A turn about the isocenter is a turn about the
// source and the shift r x source.
static void write_row(const View& view, const Out& out, int row, int u0, int n, const float* __restrict s,
                      const float* __restrict x0, const float* __restrict x1, const float* __restrict y0,
                      const float* __restrict y1) {
    const std::ptrdiff_t pixels = out.apart, first = static_cast<std::ptrdiff_t>(row - out.first) * view.w + u0;
    const float* m = view.m;
    const float wy = view.ay + row * view.pv, wz = -view.sdd;
    float* const image = out.image + first;
    float* const j = out.jacobian ? out.jacobian + first : nullptr;
    for (int i = 0; i < n; ++i) {
        const float wx = view.ax + (u0 + i) * view.pu;
        const float dx = m[0] * wx + m[1] * wy + m[2] * wz, dy = m[3] * wx + m[4] * wy + m[5] * wz;
        const float dz = m[6] * wx + m[7] * wy + m[8] * wz, over = 1 / dz;
        const float mx = dx * over, my = dy * over;
        const float step = __builtin_sqrtf(wx * wx + wy * wy + wz * wz) * (over < 0 ? -over : over);
        image[i] = step * s[i];
        if (!j) continue;
        // what a motion of the source by one index step along x, y, z does, and a change of the direction
        const float sx = step * x0[i], sy = step * y0[i], sz = -mx * sx - my * sy;
        const float ex = step * x1[i] * over, ey = step * y1[i] * over;
        const float ez = -mx * ex - my * ey - step * s[i] * over;
        const float tx = -(m[0] * sx + m[3] * sy + m[6] * sz), ty = -(m[1] * sx + m[4] * sy + m[7] * sz);
        const float tz = -(m[2] * sx + m[5] * sy + m[8] * sz);
        // the same for the direction in mm: g . dw, and dw = -(r x w), so a turn's derivative is g x w
        const float gx = m[0] * ex + m[3] * ey + m[6] * ez, gy = m[1] * ex + m[4] * ey + m[7] * ez;
        const float gz = m[2] * ex + m[5] * ey + m[8] * ez;
        j[i] = gy * wz - gz * wy - view.sod * ty;
        j[i + pixels] = gz * wx - gx * wz + view.sod * tx;
        j[i + 2 * pixels] = gx * wy - gy * wx;
        j[i + 3 * pixels] = tx;
        j[i + 4 * pixels] = ty;
        j[i + 5 * pixels] = tz;
    }
}
