// SPDX-License-Identifier: Apache-2.0
// Shared layout of the enhancement kernels: float32 pictures, rows one after the other, borders repeated.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

// One binary for all processors: the compiler makes an AVX2 and a plain copy of each hot loop and picks
// at load time. Contraction is off (CMake), so both give the same sums in the same order.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define FLUORONAV_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FLUORONAV_CLONES
#endif

namespace fluoronav {

constexpr int kPad = 6;       // pixels of border: half a line of 11 taps and one more
constexpr int kDirections = 12;
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

// Taps (dx, dy) on one side of a line through the center, one pixel apart along its longer axis; the other
// side is their mirror image. Twelve directions, 15 degrees apart: a straight line is never off by more than
// 0.7 pixels at the ends of its taps.
struct Tap { int dx, dy; };
constexpr Tap kTaps[kDirections][kReach] = {
    {{1, 0}, {2, 0}, {3, 0}, {4, 0}, {5, 0}},
    {{1, 0}, {2, 1}, {3, 1}, {4, 1}, {5, 1}},
    {{1, 1}, {2, 1}, {3, 2}, {4, 2}, {5, 3}},
    {{1, 1}, {2, 2}, {3, 3}, {4, 4}, {5, 5}},
    {{1, 1}, {1, 2}, {2, 3}, {2, 4}, {3, 5}},
    {{0, 1}, {1, 2}, {1, 3}, {1, 4}, {1, 5}},
    {{0, 1}, {0, 2}, {0, 3}, {0, 4}, {0, 5}},
    {{0, 1}, {-1, 2}, {-1, 3}, {-1, 4}, {-1, 5}},
    {{-1, 1}, {-1, 2}, {-2, 3}, {-2, 4}, {-3, 5}},
    {{-1, 1}, {-2, 2}, {-3, 3}, {-4, 4}, {-5, 5}},
    {{-1, 1}, {-2, 1}, {-3, 2}, {-4, 2}, {-5, 3}},
    {{-1, 0}, {-2, 1}, {-3, 1}, {-4, 1}, {-5, 1}},
};

inline float smoothstep(float x, float low, float high) {
    float t = (x - low) / (high - low);
    t = t < 0 ? 0 : (t > 1 ? 1 : t);
    return t * t * (3 - 2 * t);
}

// 3x3 binomial blur of one row of a padded picture, reading the rows above and below.
inline void blur3_row(const Padded& in, int y, float* out) {
    const float *a = in.row(y - 1), *b = in.row(y), *c = in.row(y + 1);
    for (int x = 0; x < in.cols; ++x)
        out[x] = 0.0625f * (a[x - 1] + a[x + 1] + c[x - 1] + c[x + 1]) + 0.125f * (a[x] + c[x] + b[x - 1] + b[x + 1]) +
                 0.25f * b[x];
}

// Mean over 11 pixels along the line direction, out of twelve, in which it is largest in magnitude, signed.
// Columns x0 to x1 only: eleven rows of 256 columns stay in the first cache.
inline void line_row(const Padded& in, int y, int x0, int x1, float* __restrict best) {
    static_assert(kReach == 5, "the sum below has five pairs");
    const float* __restrict center = in.row(y);
    for (int x = x0; x < x1; ++x) best[x] = 0;
    for (int k = 0; k < kDirections; ++k) {
        const Tap* t = kTaps[k];
        const float *p1 = in.row(y + t[0].dy) + t[0].dx, *n1 = in.row(y - t[0].dy) - t[0].dx;
        const float *p2 = in.row(y + t[1].dy) + t[1].dx, *n2 = in.row(y - t[1].dy) - t[1].dx;
        const float *p3 = in.row(y + t[2].dy) + t[2].dx, *n3 = in.row(y - t[2].dy) - t[2].dx;
        const float *p4 = in.row(y + t[3].dy) + t[3].dx, *n4 = in.row(y - t[3].dy) - t[3].dx;
        const float *p5 = in.row(y + t[4].dy) + t[4].dx, *n5 = in.row(y - t[4].dy) - t[4].dx;
        for (int x = x0; x < x1; ++x) {
            const float near = (p1[x] + n1[x]) + (p2[x] + n2[x]), far = (p3[x] + n3[x]) + (p4[x] + n4[x]);
            const float sum = center[x] + (near + (far + (p5[x] + n5[x])));
            best[x] = std::fabs(sum) > std::fabs(best[x]) ? sum : best[x];
        }
    }
    for (int x = x0; x < x1; ++x) best[x] *= 1.0f / (2 * kReach + 1);
}

}  // namespace fluoronav
