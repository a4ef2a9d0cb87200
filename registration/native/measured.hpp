// SPDX-License-Identifier: Apache-2.0
// A frame's stored values as the line integrals of larger pixels, in one pass over them.
//
// A detector with pixels of k x k would have counted the sum, so max(v - dark, floor) is averaged over the valid pixels
// of a block, and one logarithm a block is taken: line integrals of every pixel, which nobody asked for, would be
// sixteen times the work. Rows of blocks are shared among the crew; each writes its own. What bounds the speed is
// reading the frame: 512 x 512 values of 16 bits 0.04 ms on one thread.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "../projector/native/crew.hpp"
#include "blocks.hpp"

namespace blocks {

struct Law {
    float dark, floor;
    bool counts;      // logarithms of the means are wanted
    float logarithm;  // of the open beam's signal
};

template <class T> FLUORONAV_INLINE void add_values(const T* values, int n, Law law, float* sums) {
#pragma GCC ivdep
    for (int x = 0; x < n; ++x) sums[x] += larger(static_cast<float>(values[x]) - law.dark, law.floor);
}

template <class T>
FLUORONAV_INLINE void add_values(const T* values, const std::uint8_t* valid, int n, Law law, float* sums, float* mass) {
#pragma GCC ivdep
    for (int x = 0; x < n; ++x) {
        const float seen = valid[x] ? 1.0f : 0.0f;
        sums[x] += seen * larger(static_cast<float>(values[x]) - law.dark, law.floor), mass[x] += seen;
    }
}

FLUORONAV_CLONES inline void add_line(const std::uint16_t* v, const std::uint8_t* valid, int n, Law law, float* sums, float* mass) {
    valid ? add_values(v, valid, n, law, sums, mass) : add_values(v, n, law, sums);
}

FLUORONAV_CLONES inline void add_line(const float* v, const std::uint8_t* valid, int n, Law law, float* sums, float* mass) {
    valid ? add_values(v, valid, n, law, sums, mass) : add_values(v, n, law, sums);
}

// Sums become means, and masses weights.
FLUORONAV_CLONES inline void averaged(float* values, float* mass, int n, float over) {
#pragma GCC ivdep
    for (int i = 0; i < n; ++i) values[i] /= larger(mass[i], 1e-30f), mass[i] *= over;
}

FLUORONAV_CLONES inline void scaled(float* values, int n, float over) {
    for (int i = 0; i < n; ++i) values[i] *= over;
}

// out, weight: rows x cols; valid may be null. A block without a valid pixel has weight 0 and a value without meaning.
template <class T>
void measure(const T* values, const std::uint8_t* valid, int w, int k, int rows, int cols, Law law, float* out, float* weight,
             int threads) {
    constexpr int BAND = 16;
    const int used = cols * k, parts = (rows + BAND - 1) / BAND;
    const float over = 1.0f / static_cast<float>(k * k);
    projector::Crew::run(static_cast<std::size_t>(rows) * cols * k * k < (1u << 17) ? 1 : threads, {parts}, [&](int, int part, int) {
        std::vector<float> sums(used), mass(used);
        for (int y = part * BAND; y < std::min(rows, part * BAND + BAND); ++y) {
            std::fill(sums.begin(), sums.end(), 0.0f), std::fill(mass.begin(), mass.end(), 0.0f);
            for (int row = y * k; row < y * k + k; ++row) {
                const std::ptrdiff_t at = static_cast<std::ptrdiff_t>(row) * w;
                add_line(values + at, valid ? valid + at : nullptr, used, law, sums.data(), mass.data());
            }
            float *to = out + static_cast<std::ptrdiff_t>(y) * cols, *share = weight + static_cast<std::ptrdiff_t>(y) * cols;
            folded(sums.data(), k, cols, to);
            if (valid) folded(mass.data(), k, cols, share), averaged(to, share, cols, over);
            else std::fill(share, share + cols, 1.0f), scaled(to, cols, over);
            if (law.counts) turned_back(to, cols, law.logarithm);
        }
    });
}

}  // namespace blocks
