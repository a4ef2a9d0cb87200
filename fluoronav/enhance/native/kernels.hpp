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

constexpr int kPad = 6;       // pixels of border: half a line of 7 taps, one more for the blur
constexpr int kDirections = 12;
constexpr int kReach = 5;     // taps on each side of the center

// A picture with repeated borders, so that the loops inside need no tests.
struct Padded {
    int rows, cols, stride;
    std::vector<float> data;
    Padded(int r, int c) : rows(r), cols(c), stride(c + 2 * kPad), data(std::size_t(r + 2 * kPad) * stride) {}
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

// Taps (dx, dy) on one side of a line through the center; the other side is their mirror image.
struct Tap { int dx, dy; };
constexpr Tap kTaps[kDirections][kReach] = {{{1,0},{2,0},{3,0},{4,0},{5,0}},{{1,0},{2,1},{3,1},{4,1},{5,1}},{{1,1},{2,1},{3,2},{4,2},{5,3}},{{1,1},{2,2},{3,3},{4,4},{5,5}},{{1,1},{1,2},{2,3},{2,4},{3,5}},{{0,1},{1,2},{1,3},{1,4},{1,5}},{{0,1},{0,2},{0,3},{0,4},{0,5}},{{0,1},{-1,2},{-1,3},{-1,4},{-1,5}},{{-1,1},{-1,2},{-2,3},{-2,4},{-3,5}},{{-1,1},{-2,2},{-3,3},{-4,4},{-5,5}},{{-1,1},{-2,1},{-3,2},{-4,2},{-5,3}},{{-1,0},{-2,1},{-3,1},{-4,1},{-5,1}}};

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

// Mean over 7 pixels along the line direction, out of eight, in which it is largest in magnitude, signed.
inline void line_row(const Padded& in, int y, float* best) {
    const float* center = in.row(y);
    for (int x = 0; x < in.cols; ++x) best[x] = 0;
    std::vector<float> sum(in.cols);
    float* __restrict t = sum.data();
    for (int k = 0; k < kDirections; ++k) {
        std::copy(center, center + in.cols, t);
        for (int j = 0; j < kReach; ++j) {
            const float* __restrict p = in.row(y + kTaps[k][j].dy) + kTaps[k][j].dx;
            const float* __restrict n = in.row(y - kTaps[k][j].dy) - kTaps[k][j].dx;
            for (int x = 0; x < in.cols; ++x) t[x] += p[x] + n[x];
        }
        for (int x = 0; x < in.cols; ++x) best[x] = std::fabs(t[x]) > std::fabs(best[x]) ? t[x] : best[x];
    }
    for (int x = 0; x < in.cols; ++x) best[x] *= 1.0f / (2 * kReach + 1);
}

}  // namespace fluoronav
