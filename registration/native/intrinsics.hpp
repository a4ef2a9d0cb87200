// SPDX-License-Identifier: Apache-2.0
// Three columns more for a Jacobian: what confidence.by_intrinsics derives, row by row.
#pragma once

#include <cstddef>

#include "tiles.hpp"

namespace correlation {

// A row of six planes `apart` floats from each other, and of the three that follow them. step_u, step_v: slope of a
// ray from pixel to pixel; b: its slope along rows in this row; sod in mm.
FLUORONAV_CLONES inline void intrinsics_row(float* row, std::ptrdiff_t apart, int w, float sod, float step_u, float step_v, float cu, float b) {
    const float *rx = row, *ry = row + apart, *tx = row + 3 * apart, *ty = row + 4 * apart;
    float *by_sdd = row + 6 * apart, *by_u = by_sdd + apart, *by_v = by_u + apart;
#pragma GCC ivdep
    for (int i = 0; i < w; ++i) {
        const float a = (static_cast<float>(i) - cu) * step_u, over = 1.0f / (1.0f + a * a + b * b);
        const float about_x = rx[i] + sod * ty[i], about_y = ry[i] - sod * tx[i];
        const float by_a = (a * b * about_x + (1.0f + b * b) * about_y) * over;
        const float by_b = (-a * b * about_y - (1.0f + a * a) * about_x) * over;
        by_sdd[i] = -a * by_a - b * by_b, by_u[i] = -by_a * step_u, by_v[i] = -by_b * step_v;
    }
}

}  // namespace correlation
