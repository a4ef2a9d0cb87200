// SPDX-License-Identifier: Apache-2.0
// What all kernels share: float32 pictures, rows one after the other; processor paths; repeated borders.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

// Hot loops stay functions of their own, so that what they promise about overlap (__restrict) is not lost by inlining.
// Contraction is off (CMake), so the modules of all processors give the same sums in the same order.
#if defined(__GNUC__)
#define FLUORONAV_LOOP __attribute__((noinline))
#else
#define FLUORONAV_LOOP
#endif

// What a hot loop calls must become part of it, or it would not be made of vectors.
#if defined(__GNUC__)
#define FLUORONAV_INLINE inline __attribute__((always_inline))
#else
#define FLUORONAV_INLINE inline
#endif

namespace fluoronav {

constexpr int kPad = 6;       // pixels of border: half a line of 11 taps and one more
constexpr int kReach = 5;      // taps on each side of the center

// A picture with repeated borders, so that the loops inside need no tests.
struct Padded {
    int rows = 0, cols = 0, stride = 0;
    std::vector<float> data;
    // Kept from call to call by their thread: fresh pages cost as much as the sums made in them.
    void shape(int r, int c) {
        rows = r, cols = c, stride = c + 2 * kPad;
        data.resize(std::size_t(r + 2 * kPad) * stride);
    }
    float* row(int y) { return data.data() + std::size_t(y + kPad) * stride + kPad; }
    const float* row(int y) const { return data.data() + std::size_t(y + kPad) * stride + kPad; }
    void repeat_borders() {
        for (int y = 0; y < rows; ++y) {
            float* p = row(y);
            std::fill(p - kPad, p, p[0]);
            std::fill(p + cols, p + cols + kPad, p[cols - 1]);
        }
        for (int k = 1; k <= kPad; ++k) {
            std::copy(row(0) - kPad, row(0) - kPad + stride, row(-k) - kPad);
            std::copy(row(rows - 1) - kPad, row(rows - 1) - kPad + stride, row(rows - 1 + k) - kPad);
        }
    }
};

// 0 below `low`, 1 from 1 / inverse above it on, smooth between: a division a pixel is worth avoiding.
FLUORONAV_INLINE float smoothstep(float x, float low, float inverse) {
    float t = (x - low) * inverse;
    t = t < 0 ? 0 : (t > 1 ? 1 : t);
    return t * t * (3 - 2 * t);
}

}  // namespace fluoronav
