// SPDX-License-Identifier: Apache-2.0
// See filters.hpp; each walks down its band of rows once, as denoise.cpp does.
#include "filters.hpp"

#include "team.hpp"

namespace fluoronav {

FLUORONAV_LOOP
static void scaled_row(const Short* steps, float unit, int cols, float* __restrict out) {
    for (int x = 0; x < cols; ++x) out[x] = float(steps[x]) * unit;
}

void evidence(const float* y, const float* m, const float* v, float frame, int rows, int cols, float* out) {
    each_row(rows, [&](int r0, int r1) {
        Scratch scratch;
        Ring<Short> innovation(scratch, 4, rows, cols), soft(scratch, 16, rows, cols);
        std::vector<Short> vertical(cols + 4), best(cols);
        const int first = std::max(0, r0 - kReach - 1), last = std::min(rows, r1 + kReach + 1);
        for (int r = first; r < r1 + kReach + 1; ++r) {
            if (r < last) {
                const std::size_t at = std::size_t(r) * cols;
                innovation_row(y + at, m + at, v + at, frame, cols, innovation.row(r));
                innovation.repeat(r);
            }
            const int s = r - 1, l = s - kReach;
            if (s >= std::max(0, r0 - kReach) && s < rows) {
                soft_row(innovation.at(s - 1), innovation.at(s), innovation.at(s + 1), cols, vertical.data(),
                         soft.row(s));
                soft.repeat(s);
            }
            if (l >= r0 && l < r1) {
                const Short* near[2 * kReach + 1];
                for (int k = 0; k <= 2 * kReach; ++k) near[k] = soft.at(l + k - kReach);
                line_sums(near, cols, best.data());
                scaled_row(best.data(), kEvidenceUnit, cols, out + std::size_t(l) * cols);
            }
        }
    });
}

void parts(const float* m, int rows, int cols, float* near, float* along, float* wide) {
    constexpr int kFar = 4;
    each_row(rows, [&](int r0, int r1) {
        Scratch scratch;
        Ring<float> whole(scratch, 8, rows, cols), base(scratch, 16, rows, cols);
        Ring<Short> detail(scratch, 16, rows, cols);
        std::vector<float> vertical(cols + 16);
        std::vector<Short> best(cols);
        const auto around = [&](const Ring<float>& ring, int y, int apart, const float** lines) {
            for (int k = 0; k < 5; ++k) lines[k] = ring.at(y + apart * (k - 2));
        };
        for (int r = std::max(0, r0 - kReach - 2); r < r1 + kReach + 2; ++r) {
            const float* five[5];
            if (r < rows) {
                std::copy(m + std::size_t(r) * cols, m + std::size_t(r + 1) * cols, whole.row(r));
                whole.repeat(r);
            }
            const int b = r - 2, l = b - kReach, w = b - kFar;
            if (b >= std::max(0, r0 - kReach) && b < rows) {
                around(whole, b, 1, five);
                binomial_row(five, 1, cols, vertical.data(), base.row(b));
                base.repeat(b);
                detail_row(whole.row(b), base.row(b), cols, detail.row(b));
                detail.repeat(b);
                if (b >= r0 && b < r1) std::copy(base.row(b), base.row(b) + cols, near + std::size_t(b) * cols);
            }
            if (w >= r0 && w < r1) {
                around(base, w, 2, five);
                binomial_row(five, 2, cols, vertical.data(), wide + std::size_t(w) * cols);
            }
            if (l >= r0 && l < r1) {
                const Short* lines[2 * kReach + 1];
                for (int k = 0; k <= 2 * kReach; ++k) lines[k] = detail.at(l + k - kReach);
                line_sums(lines, cols, best.data());
                scaled_row(best.data(), kDetailUnit, cols, along + std::size_t(l) * cols);
            }
        }
    });
}

FLUORONAV_LOOP
static void magnitude_row(const float* values, int cols, float* __restrict out) {
    for (int x = 0; x < cols; ++x) out[x] = std::fabs(values[x]);
}

FLUORONAV_LOOP
static void widen_row(const float* a, const float* b, const float* c, int cols, float* __restrict out) {
    widened_row(a, b, c, cols, out);
}

void widened(const float* values, int rows, int cols, float* out) {
    each_row(rows, [&](int r0, int r1) {
        Scratch scratch;
        Ring<float> size(scratch, 4, rows, cols);
        for (int r = std::max(0, r0 - 1); r <= r1; ++r) {
            if (r < rows) {
                magnitude_row(values + std::size_t(r) * cols, cols, size.row(r));
                size.repeat(r);
            }
            if (r > r0) widen_row(size.at(r - 2), size.at(r - 1), size.at(r), cols, out + std::size_t(r - 1) * cols);
        }
    });
}

}  // namespace fluoronav
