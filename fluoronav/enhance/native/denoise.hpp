// SPDX-License-Identifier: Apache-2.0
// The whole classical denoiser of one frame (see denoise.cpp).
#pragma once

#include "moved.hpp"

namespace fluoronav {

constexpr float kUnknown = 30.0f;  // variance of a pixel that has just changed: the new frame counts 30 : 1

// What the filter decides by; *_scale: one over the median of what noise alone does; left, kept: what the spatial part
// leaves of the variance of noise alone, and the mean share of detail that it keeps of it.
struct Rules {
    float frame, evidence_scale, line_scale, point_scale, gate_low, gate_high, floor, price, detail_low, detail_high,
        detail_least, left, kept;
};

struct Buffers {      // all (rows, columns)
    const float* y;   // null: the state is taken as it is, and only the spatial part is done
    float *m, *v;     // the new state; not touched where y is null
    float *clean, *variance;
    float* kept;      // share of its detail that each pixel kept; may be null
};

void denoise(const Picture& state, const Flow* flow, const Rules& rules, const Buffers& buffers);

}  // namespace fluoronav
