// SPDX-License-Identifier: Apache-2.0
// The levels of the contrast pyramid (contrast.cpp): what they hold, what is told of them to who chooses gains, and how
// those gains come onto the grid of each. Included once.
#pragma once

#include "rows.hpp"
#include "team.hpp"

namespace fluoronav {

constexpr int kLevels = 4;
constexpr int kRanged = 2;  // the level on whose grid ranges are taken

struct Level {
    Padded g, add, wide, top, low;  // top, low: of the pixels below each pixel of the level
    Padded cells, detail, gain;     // for `choose`: E, d; what it answered (of the finest level on the next one's grid)
    std::vector<float> own;         // variance, but of the finest level, which reads the caller's
    const float* v = nullptr;
    bool told = false;              // whether somebody chooses
    const float* variance(int r) const { return v + std::size_t(r) * g.cols; }
};

// One row of the next finer level, linear between the pixels, which lie on its even ones.
FLUORONAV_LOOP
static void expand_row(const Padded& in, int r, int cols, float* __restrict line, float* __restrict out) {
    const float *a = in.row(r / 2), *b = in.row((r + 1) / 2);
    for (int x = 0; x <= in.cols; ++x) line[x] = 0.5f * (a[x] + b[x]);
    const int half = cols / 2;
    for (int x = 0; x < half; ++x) {
        out[2 * x] = line[x];
        out[2 * x + 1] = 0.5f * (line[x] + line[x + 1]);
    }
    if (cols % 2) out[cols - 1] = line[half];
}

static void load(const float* from, Padded& to) {
    each_row(to.rows, [&](int r0, int r1) {
        for (int r = r0; r < r1; ++r) std::copy(from + std::size_t(r) * to.cols, from + std::size_t(r + 1) * to.cols, to.row(r));
    });
    to.repeat_borders();
}

static void expand(const Padded& in, Padded& out) {
    each_row(out.rows, [&](int r0, int r1) {
        static thread_local std::vector<float> own;
        own.resize(std::size_t(in.cols) + 2 * kPad);
        for (int r = r0; r < r1; ++r) expand_row(in, r, out.cols, own.data(), out.row(r));
    });
    out.repeat_borders();
}

FLUORONAV_LOOP
static void times(const float* __restrict a, int n, float* __restrict out) {
    for (int x = 0; x < n; ++x) out[x] *= a[x];
}

FLUORONAV_LOOP
static void weighed(const float* __restrict row, int n, float weight, float* __restrict sum) {
    for (int x = 0; x < n; ++x) sum[x] += weight * row[x];
}

// Sums of kSize pixels of a row times `scale`; the last pixel is repeated.
template <int kSize>
FLUORONAV_LOOP static void pool_row(const float* __restrict row, int cols, float scale, float* __restrict cells) {
    const int whole = cols / kSize;
    for (int x = 0; x < whole; ++x) {
        float sum = 0;
        for (int i = 0; i < kSize; ++i) sum += row[x * kSize + i];
        cells[x] = scale * sum;
    }
    if (cols % kSize == 0) return;
    float sum = float(kSize - cols % kSize) * row[cols - 1];
    for (int x = whole * kSize; x < cols; ++x) sum += row[x];
    cells[whole] = scale * sum;
}

// What `choose` is told of one row of a level; `sum` keeps the rows of a cell.
static void tell_row(Level& at, int level, int r, const float* energy, const float* detail, float* sum) {
    const int rows = at.g.rows, cols = at.g.cols, size = level < kRanged ? 1 << (kRanged - level) : 1;
    if (level >= kRanged) {
        std::copy(detail, detail + cols, at.detail.row(r));
        std::copy(energy, energy + cols, at.cells.row(r));
        return;
    }
    const int left = r == rows - 1 ? size - r % size : 1;  // the last row is repeated
    if (r % size == 0) std::fill(sum, sum + cols, 0.0f);
    weighed(energy, cols, float(left), sum);
    if (r % size + left < size) return;
    float* cells = at.cells.row(r / size);
    if (size == 4) pool_row<4>(sum, cols, 1.0f / 16, cells);
    else pool_row<2>(sum, cols, 0.25f, cells);
}

// What `choose` is told (7 planes on the grid of kRanged, 2 on the next).
static void tell(const std::vector<Level>& levels, float* fine, float* coarse) {
    const Level &at = levels[kRanged], &next = levels[kRanged + 1];
    const std::size_t plane = std::size_t(at.g.rows) * at.g.cols, small = std::size_t(next.g.rows) * next.g.cols;
    each_row(at.g.rows, [&](int r0, int r1) {
        for (int r = r0; r < r1; ++r) {
            float* to = fine + std::size_t(r) * at.g.cols;
            for (int l = 0; l <= kRanged; ++l, to += plane)
                std::copy(levels[l].cells.row(r), levels[l].cells.row(r) + at.g.cols, to);
            std::copy(at.detail.row(r), at.detail.row(r) + at.g.cols, to);
            const float *g = at.g.row(r), *top = at.top.row(r), *low = at.low.row(r);
            for (int x = 0; x < at.g.cols; ++x) to[plane + x] = top[x] - g[x], to[2 * plane + x] = low[x] - g[x];
            std::copy(at.variance(r), at.variance(r) + at.g.cols, to + 3 * plane);
        }
    });
    for (int r = 0; r < next.g.rows; ++r) {
        float* to = coarse + std::size_t(r) * next.g.cols;
        std::copy(next.cells.row(r), next.cells.row(r) + next.g.cols, to);
        std::copy(next.detail.row(r), next.detail.row(r) + next.g.cols, to + small);
    }
}

// The gains (kLevels planes on the grid of kRanged) on the grid of each level; of the finest on that of the next.
static void gains_on(std::vector<Level>& levels, const float* gains) {
    static thread_local Padded own;
    Padded& given = own;
    const int rows = levels[kRanged].g.rows, cols = levels[kRanged].g.cols;
    for (int l = 0; l < kLevels; ++l) {
        const Padded& grid = levels[std::max(l, 1)].g;
        Padded& to = levels[l].gain;
        to.shape(grid.rows, grid.cols);
        const float* from = gains + std::size_t(l) * rows * cols;
        if (l == kRanged) {
            load(from, to);
        } else if (l < kRanged) {
            given.shape(rows, cols);
            load(from, given);
            expand(given, to);
        } else {
            for (int r = 0; r < to.rows; ++r)
                for (int x = 0; x < to.cols; ++x) to.row(r)[x] = from[std::size_t(2 * r) * cols + 2 * x];
        }
    }
}

}  // namespace fluoronav
