// SPDX-License-Identifier: Apache-2.0
// Which turn in its plane and which shift lay a computed picture best over the measured one?
//
// A turn of the C-arm about its source moves the picture by a homography, which over the angles of one detector is
// nearly a shift; a roll about the central ray is a rotation of the picture. So of six numbers of a pose only the
// direction of view and the depth need a projection of their own: each is turned by every roll here, and correlated
// with the measured picture at every shift.
//
// What bounds the speed: three products a pixel and shift (sum W m, sum W m m, sum W b m); sixteen shifts are lanes of a
// register, so that nothing has to be summed across. 16 x 16 pixels at 15 x 15 shifts: some 5 us.
#pragma once
#include "climb.hpp"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define FLUORONAV_SWEEP_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FLUORONAV_SWEEP_CLONES
#endif
#ifndef FLUORONAV_INLINE
#define FLUORONAV_INLINE inline __attribute__((always_inline))
#endif

namespace projector {

struct Sweep {
    int size;      // of the square pictures that are laid over, px
    double pitch;  // of their pixels, mm at the detector; the central ray meets the middle of the picture
    int reach_u, reach_v;  // shifts from -reach to reach, px of the measured picture
    int stride;            // of the shifts along v that are tried first; those between are, beside the best
};

struct Laid {
    float r = -2;
    int u = 0, v = 0;
};

// The picture turned by (cosine, sine) on the measured picture's pixels and `reach` more on each side; zero outside.
inline void turned(const float* picture, const Sweep& s, const Arm& arm, double cosine, double sine, int pitch,
                   float* out) {
    const double scale_u = arm.pu / s.pitch, scale_v = arm.pv / s.pitch, middle = (s.size - 1) / 2.0;
    for (int v = -s.reach_v; v < static_cast<int>(arm.h) + s.reach_v; ++v) {
        float* row = out + static_cast<std::ptrdiff_t>(v + s.reach_v) * pitch;
        const double y = (v - arm.cv) * scale_v, x0 = (-s.reach_u - arm.cu) * scale_u;
        const auto px = static_cast<float>(cosine * x0 + sine * y + middle);
        const auto py = static_cast<float>(-sine * x0 + cosine * y + middle);
        const auto dx = static_cast<float>(cosine * scale_u), dy = static_cast<float>(-sine * scale_u);
        const auto last = static_cast<float>(s.size - 1);
        for (int u = 0; u < static_cast<int>(arm.w) + 2 * s.reach_u; ++u) {
            const float ax = px + static_cast<float>(u) * dx, ay = py + static_cast<float>(u) * dy;
            if (!(ax >= 0 && ay >= 0 && ax < last && ay < last)) {
                row[u] = 0;
                continue;
            }
            const int xi = static_cast<int>(ax), yi = static_cast<int>(ay);
            const float fx = ax - static_cast<float>(xi), fy = ay - static_cast<float>(yi);
            const float *p = picture + static_cast<std::ptrdiff_t>(yi) * s.size + xi, *q = p + s.size;
            const float top = p[0] + fx * (p[1] - p[0]), low = q[0] + fx * (q[1] - q[0]);
            row[u] = top + fy * (low - top);
        }
    }
}

// The best of LANES shifts along u from `first` on, at row `dv`, if better than the best so far.
FLUORONAV_INLINE void lay(const float* image, int pitch, const Target& t, const Sweep& s, int first, int dv, Laid& best) {
    Lanes one = {}, two = {}, cross = {};  // a lane a shift
    for (int y = 0; y < t.h; ++y) {
        const float* row = image + static_cast<std::ptrdiff_t>(y + dv) * pitch + first;
        const float *weight = &t.weight[y * t.w], *wb = &t.wb[y * t.w];
        for (int x = 0; x < t.w; ++x) {
            const Lanes m = lanes(row + x), wm = weight[x] * m;
            one += wm, two += wm * m, cross += wb[x] * m;
        }
    }
    const int n = std::min(LANES, 2 * s.reach_u + 1 - first);
    for (int i = 0; i < n; ++i) {
        const float aa = two[i] - one[i] * one[i] / static_cast<float>(t.mass);
        const float r = cross[i] / std::sqrt(std::max(aa, 1e-9f) * static_cast<float>(t.norm));
        if (r > best.r) best = {r, first + i - s.reach_u, dv - s.reach_v};
    }
}

// The best of all shifts of `image` (rows of `pitch`, the measured picture's and reach more on each side, zeros behind).
FLUORONAV_SWEEP_CLONES static Laid best_shift(const float* image, int pitch, const Target& t, const Sweep& s) {
    Laid best;
    for (int dv = 0; dv <= 2 * s.reach_v; dv += s.stride)
        for (int first = 0; first <= 2 * s.reach_u; first += LANES) lay(image, pitch, t, s, first, dv, best);
    const int from = (best.u + s.reach_u) / LANES * LANES, row = best.v + s.reach_v;
    for (int dv = std::max(0, row - s.stride + 1); dv <= std::min(2 * s.reach_v, row + s.stride - 1); ++dv)
        if (dv != row) lay(image, pitch, t, s, from, dv, best);
    return best;
}

}  // namespace projector
