// SPDX-License-Identifier: Apache-2.0
// A measured picture at coarser resolutions, with its noise, from one pass over its pixels.
//
// Line integrals p are averaged as a detector with larger pixels would: exp(least - p), at most 1, is summed over
// k x k blocks and turned back. The pixels of a block are dealt to two halves like the fields of a chess board; half
// of the difference of their means has the noise of the whole's mean. Coarser levels add up finer ones, so the
// exponential, which is what costs, is taken once a pixel. 512 x 512 pixels: 0.2 ms on one thread, half of it memory.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "../projector/native/crew.hpp"
#include "tiles.hpp"

namespace blocks {

// by value: std::min and std::max keep loops from becoming vectors
inline float larger(float a, float b) { return a > b ? a : b; }
inline float smaller(float a, float b) { return a < b ? a : b; }

inline float as_float(std::int32_t bits) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}
inline std::int32_t as_int(float x) {
    std::int32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
}

// exp(x) for x <= 0, to 4e-6 relative (sums may be reordered here); 0 below -87. Cody-Waite reduction and the polynomial of Cephes' expf.
inline float exp_of(float x) {
    x = larger(x, -87.0f);
    const float n = static_cast<float>(static_cast<std::int32_t>(x * 1.44269504f - 0.5f));
    const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float y = 1.9875691500e-4f;
    y = y * r + 1.3981999507e-3f, y = y * r + 8.3334519073e-3f, y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f, y = y * r + 5.0000001201e-1f;
    y = y * r * r + r + 1.0f;
    return y * as_float((static_cast<std::int32_t>(n) + 127) << 23);
}

// ln(x) for normal x > 0, to 4e-6: the polynomial of Cephes' logf around 1.
inline float log_of(float x) {
    const std::int32_t bits = as_int(x), n = (bits >> 23) - 126;
    const float half = as_float((bits & 0x007fffff) | 0x3f000000);  // 0.5 .. 1
    const bool low = half < 0.707106781f;
    const float m = low ? half + half - 1.0f : half - 1.0f;
    const float e = static_cast<float>(n) - (low ? 1.0f : 0.0f), z = m * m;
    float y = 7.0376836292e-2f;
    y = y * m - 1.1514610310e-1f, y = y * m + 1.1676998740e-1f, y = y * m - 1.2420140846e-1f;
    y = y * m + 1.4249322787e-1f, y = y * m - 1.6668057665e-1f, y = y * m + 2.0000714765e-1f;
    y = y * m - 2.4999993993e-1f, y = y * m + 3.3333331174e-1f;
    return (m + (y * m * z - 0.5f * z + e * -2.12194440e-4f)) + e * 0.693359375f;
}

// Of the pixels with weight; 0 where there are none.
FLUORONAV_CLONES inline float smallest(const float* picture, const float* weight, std::size_t n) {
    constexpr float none = 3e38f;
    float least = none;
    for (std::size_t i = 0; i < n; ++i) least = smaller(least, weight[i] > 0 ? picture[i] : none);
    return least < none ? least : 0.0f;
}

// Neighbors added up; `out` may be where `line` is.
FLUORONAV_CLONES inline void paired(const float* line, int n, float* out) {
#pragma GCC ivdep
    for (int i = 0; i < n; ++i) out[i] = line[2 * i] + line[2 * i + 1];
}

// Sums over runs of f values; `line` is used up.
inline void folded(float* line, int f, int cols, float* out) {
    for (; f % 2 == 0 && f > 2; f /= 2) paired(line, cols * f / 2, line);
    if (f == 2) return paired(line, cols, out);
    if (f == 1) return static_cast<void>(std::copy(line, line + cols, out));
    for (int c = 0; c < cols; ++c) {
        float s = line[c * f];
        for (int x = 1; x < f; ++x) s += line[c * f + x];
        out[c] = s;
    }
}

// Neighbors added up crosswise, in place: the fields of a board in two rows of sums over columns.
FLUORONAV_CLONES inline void crossed(float* a, float* b, int n) {
#pragma GCC ivdep
    for (int i = 0; i < n; ++i) {
        const float one = a[2 * i] + b[2 * i + 1], two = b[2 * i] + a[2 * i + 1];
        a[i] = one, b[i] = two;
    }
}

// A row of pixels' weight times signal, and weight, put into or added to sums.
template <bool COUNTS, bool FRESH>
FLUORONAV_INLINE void take(const float* p, const float* q, int n, float least, float* signal, float* mass) {
#pragma GCC ivdep
    for (int x = 0; x < n; ++x) {
        const float s = q[x] * (COUNTS ? exp_of(least - (q[x] > 0 ? p[x] : least)) : q[x] > 0 ? p[x] : 0.0f);
        signal[x] = FRESH ? s : signal[x] + s, mass[x] = FRESH ? q[x] : mass[x] + q[x];
    }
}

FLUORONAV_CLONES inline void take_row(const float* p, const float* q, int n, bool counts, bool fresh, float least, float* signal, float* mass) {
    if (counts) fresh ? take<true, true>(p, q, n, least, signal, mass) : take<true, false>(p, q, n, least, signal, mass);
    else fresh ? take<false, true>(p, q, n, least, signal, mass) : take<false, false>(p, q, n, least, signal, mass);
}

// Sums of one row of blocks: `sums` holds four planes of rows x cols, `apart` floats from one to the next, which are
// weight times signal and weight of the even fields, and both of the odd ones. row: the first row of pixels. Pixels
// without weight may hold anything.
inline void add_row(const float* picture, const float* weight, int w, int row, int k, int cols, bool counts, float least,
                    float* scratch, float* sums, std::ptrdiff_t apart) {
    const int used = cols * k;
    float *even_signal = scratch, *even_mass = scratch + used, *odd_signal = scratch + 2 * used, *odd_mass = scratch + 3 * used;
    if (k == 1) std::fill(scratch, scratch + 4 * used, 0.0f);
    for (int y = row; y < row + k; ++y) {
        const std::ptrdiff_t at = static_cast<std::ptrdiff_t>(y) * w;
        // in a column of pixels the fields alternate from row to row; which columns are which is sorted out below
        take_row(picture + at, weight + at, used, counts, y < row + 2, least, y % 2 ? odd_signal : even_signal, y % 2 ? odd_mass : even_mass);
    }
    if (k % 2) {
        for (int c = 0; c < cols; ++c) {
            float s[4] = {0, 0, 0, 0};
            for (int x = c * k; x < c * k + k; ++x) {
                const int flip = x % 2 ? 2 : 0;
                s[0 ^ flip] += even_signal[x], s[1 ^ flip] += even_mass[x];
                s[2 ^ flip] += odd_signal[x], s[3 ^ flip] += odd_mass[x];
            }
            for (int i = 0; i < 4; ++i) sums[i * apart + c] = s[i];
        }
        return;
    }
    crossed(even_signal, odd_signal, used / 2), crossed(even_mass, odd_mass, used / 2);
    for (int i = 0; i < 4; ++i) {
        float* line = scratch + i * used;
        folded(line, k / 2, cols, sums + i * apart);
    }
}

// Each row of blocks is one thread's: their number changes no bit.
inline void sum(const float* picture, const float* weight, int w, int k, int rows, int cols, bool counts, float least, float* sums,
                int threads) {
    constexpr int BAND = 16;
    projector::Crew::run(static_cast<std::size_t>(rows) * cols * k * k < (1u << 16) ? 1 : threads, {(rows + BAND - 1) / BAND}, [&](int, int part, int) {
        std::vector<float> scratch(static_cast<std::size_t>(4) * cols * k);
        for (int y = part * BAND; y < std::min(rows, part * BAND + BAND); ++y)
            add_row(picture, weight, w, y * k, k, cols, counts, least, scratch.data(), sums + static_cast<std::ptrdiff_t>(y) * cols,
                    static_cast<std::ptrdiff_t>(rows) * cols);
    });
}

// The same sums over blocks of f x f of these blocks. line: fine_cols floats.
FLUORONAV_CLONES inline void coarsen(const float* fine, int fine_rows, int fine_cols, int f, int rows, int cols, float* line, float* out) {
    for (int i = 0; i < 4; ++i)
        for (int y = 0; y < rows; ++y, out += cols) {
            const float* at = fine + (static_cast<std::ptrdiff_t>(i) * fine_rows + y * f) * fine_cols;
            for (int c = 0; c < cols * f; ++c) line[c] = at[c];
            for (int dy = 1; dy < f; ++dy)
                for (int c = 0; c < cols * f; ++c) line[c] += at[dy * fine_cols + c];
            folded(line, f, cols, out);
        }
}

// Line integrals of mean signals, in place.
FLUORONAV_CLONES inline void turned_back(float* values, int n, float least) {
#pragma GCC ivdep
    for (int i = 0; i < n; ++i) values[i] = least - log_of(larger(values[i], 1e-30f));
}

// Mean and mean weight (n values each) of sums over k x k pixels; a block without weight has the smallest value, or 0 unless counts.
FLUORONAV_CLONES inline void means(const float* sums, int n, int k, bool counts, float least, float* out, float* out_weight) {
    const float *s0 = sums, *m0 = sums + n, *s1 = m0 + n, *m1 = s1 + n, over = 1.0f / static_cast<float>(k * k);
    const float nothing = counts ? 1.0f : 0.0f;
#pragma GCC ivdep
    for (int i = 0; i < n; ++i) {
        const float mass = m0[i] + m1[i];
        out[i] = (mass > 0 ? s0[i] + s1[i] : nothing) / (mass > 0 ? mass : 1.0f);
        out_weight[i] = mass * over;
    }
    if (counts) turned_back(out, n, least);
}

// Mean of the two halves' means, half of their difference, and the weight: 0 where a half has seen nothing.
FLUORONAV_CLONES inline void halves(const float* sums, int n, int k, bool counts, float least, float* out, float* noise,
                                    float* out_weight) {
    const float *s0 = sums, *m0 = sums + n, *s1 = m0 + n, *m1 = s1 + n, over = 1.0f / static_cast<float>(k * k);
#pragma GCC ivdep
    for (int i = 0; i < n; ++i) out[i] = s0[i] / larger(m0[i], 1e-30f), noise[i] = s1[i] / larger(m1[i], 1e-30f);
    if (counts) turned_back(out, n, least), turned_back(noise, n, least);
#pragma GCC ivdep
    for (int i = 0; i < n; ++i) {
        const float one = out[i], two = noise[i], mass = m0[i] + m1[i];
        out[i] = 0.5f * (one + two);
        noise[i] = 0.5f * (one - two);
        out_weight[i] = mass * over * (smaller(m0[i], m1[i]) > 0 ? 1.0f : 0.0f);
    }
}

}  // namespace blocks
