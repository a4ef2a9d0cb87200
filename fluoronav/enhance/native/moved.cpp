// SPDX-License-Identifier: Apache-2.0
// Two hypotheses about the state of every pixel: it stayed, or it moved along the flow. The second is the state at
// (x, y) - flow, by Catmull-Rom, its variance from the nearest pixel with the price of interpolation added; the one
// that explains the frame better over 5x5 binomial pixels is taken.
//
// Flow and trust are given for cells of F x F pixels, and are bilinear and constant between them. Neighbors nearly
// always move by the same whole pixels: eight at a time then read sixteen plain rows in place of gathered ones.
#include "moved.hpp"

#include "team.hpp"

namespace fluoronav {

constexpr int kLanes = 8;

// Catmull-Rom weights of four neighbors at a fraction t.
static FLUORONAV_INLINE void cubic(float t, float& a, float& b, float& c, float& d) {
    a = t * (-0.5f + t * (1 - 0.5f * t));
    b = 1 + t * t * (-2.5f + 1.5f * t);
    c = t * (0.5f + t * (2 - 1.5f * t));
    d = t * t * (-0.5f + 0.5f * t);
}

static float value_at(const Picture& p, float px, float py) {
    const int ix = int(px), iy = int(py);
    float wx[4], wy[4], sum = 0;
    cubic(px - float(ix), wx[0], wx[1], wx[2], wx[3]);
    cubic(py - float(iy), wy[0], wy[1], wy[2], wy[3]);
    for (int b = 0; b < 4; ++b) {
        const float* line = p.m + std::size_t(std::min(std::max(iy + b - 1, 0), p.rows - 1)) * p.cols;
        const auto at = [&](int a) { return wx[a] * line[std::min(std::max(ix + a - 1, 0), p.cols - 1)]; };
        sum += wy[b] * ((at(0) + at(1)) + (at(2) + at(3)));
    }
    return sum;
}

// Eight neighbors that moved by the same whole pixels, far from the border: `corner` is the first one's upper left tap.
static FLUORONAV_INLINE void eight(const float* corner, const float* near, int cols, const float* __restrict tx,
                         const float* __restrict ty, float price, float* __restrict m, float* __restrict v) {
    const float *l0 = corner, *l1 = l0 + cols, *l2 = l1 + cols, *l3 = l2 + cols;
    for (int k = 0; k < kLanes; ++k) {
        float a, b, c, d, e, f, g, h;
        cubic(tx[k], a, b, c, d);
        cubic(ty[k], e, f, g, h);
        float sum = e * ((a * l0[k] + b * l0[k + 1]) + (c * l0[k + 2] + d * l0[k + 3]));
        sum += f * ((a * l1[k] + b * l1[k + 1]) + (c * l1[k + 2] + d * l1[k + 3]));
        sum += g * ((a * l2[k] + b * l2[k + 1]) + (c * l2[k + 2] + d * l2[k + 3]));
        sum += h * ((a * l3[k] + b * l3[k + 1]) + (c * l3[k + 2] + d * l3[k + 3]));
        m[k] = sum;
        const float *up = near, *down = near + cols;  // the nearest pixel, as 2x2 choices
        const float upper = tx[k] < 0.5f ? up[k] : up[k + 1], lower = tx[k] < 0.5f ? down[k] : down[k + 1];
        v[k] = (ty[k] < 0.5f ? upper : lower) + price;
    }
}

static FLUORONAV_INLINE float clamped(float x, float most) { return x < 0 ? 0 : (x > most ? most : x); }

// One coordinate of a row of cells at full resolution: linear between the middles of cells.
static void spread(const float* cells, int count, int cell, int cols, float* __restrict out) {
    const float share = 1.0f / float(cell);
    for (int x = 0, c = 0; x < cols; ++c) {
        const float left = cells[2 * std::max(c - 1, 0)], right = cells[2 * std::min(c, count - 1)];
        for (const int end = c < count ? std::min(c * cell + (cell + 1) / 2, cols) : cols; x < end; ++x) {
            const float s = (float(x) + 0.5f) * share + 0.5f - float(c);
            out[x] = left + s * (right - left);
        }
    }
}

FLUORONAV_LOOP
static void places(const float* above, const float* below, float t, int y, int cols, int stride, float bottom,
                   float* __restrict px, float* __restrict py) {
    const float right = float(cols - 1), here = float(y);
#pragma GCC ivdep
    for (int x = 0; x < cols; ++x) {
        px[x] = clamped(float(x) - ((1 - t) * above[x] + t * below[x]), right);
        py[x] = clamped(here - ((1 - t) * above[stride + x] + t * below[stride + x]), bottom);
    }
}

FLUORONAV_LOOP
static void fetch(const Picture& p, const std::uint8_t* trusted, int cell, float price, int y, const float* __restrict px,
                  const float* __restrict py, float* __restrict m, float* __restrict v) {
    const float *m0 = p.m + std::size_t(y) * p.cols, *v0 = p.v + std::size_t(y) * p.cols;
    float tx[kLanes], ty[kLanes];
    for (int x = 0; x < p.cols; x += kLanes) {
        const int n = std::min(kLanes, p.cols - x);
        bool wanted = false;
        for (int c = x / cell; c <= (x + n - 1) / cell; ++c) wanted |= trusted[c] != 0;
        if (!wanted) continue;
        const int left = int(px[x]), top = int(py[x]);
        int off = n < kLanes;
        if (!off) {
            for (int k = 0; k < kLanes; ++k) {
                const int ix = int(px[x + k]), iy = int(py[x + k]);
                off |= (ix - k) ^ left;
                off |= iy ^ top;
                tx[k] = px[x + k] - float(ix), ty[k] = py[x + k] - float(iy);
            }
            off |= left < 1 || top < 1 || left + kLanes + 2 > p.cols || top + 2 >= p.rows;
        }
        if (!off) {
            const std::size_t at = std::size_t(top) * p.cols + left;
            eight(p.m + at - p.cols - 1, p.v + at, p.cols, tx, ty, price, m + x, v + x);
        } else {
            for (int k = x; k < x + n; ++k) {
                m[k] = value_at(p, px[k], py[k]);
                const int row = std::min(int(py[k] + 0.5f), p.rows - 1), col = std::min(int(px[k] + 0.5f), p.cols - 1);
                v[k] = p.v[std::size_t(row) * p.cols + col] + price;
            }
        }
    }
    for (int x = 0, c = 0; x < p.cols; x += cell, ++c) {
        if (trusted[c]) continue;
        const int end = std::min(x + cell, p.cols);
        std::copy(m0 + x, m0 + end, m + x);
        std::copy(v0 + x, v0 + end, v + x);
    }
}

bool Mover::row(int y, float* m, float* v) {
    const std::uint8_t* trusted = flow_.trusted + std::size_t(std::min(y / flow_.cell, flow_.rows - 1)) * flow_.cols;
    if (std::find(trusted, trusted + flow_.cols, 1) == trusted + flow_.cols) {
        std::copy(picture_.m + std::size_t(y) * picture_.cols, picture_.m + std::size_t(y + 1) * picture_.cols, m);
        std::copy(picture_.v + std::size_t(y) * picture_.cols, picture_.v + std::size_t(y + 1) * picture_.cols, v);
        return false;
    }
    const float place = clamped((float(y) + 0.5f) / float(flow_.cell) - 0.5f, float(flow_.rows - 1));
    const int i = int(place), j = std::min(i + 1, flow_.rows - 1);
    for (const int r : {i, j}) {
        if (spread_[r & 1] == r) continue;
        const float* cells = flow_.px + std::size_t(2) * r * flow_.cols;
        for (int c = 0; c < 2; ++c)
            spread(cells + c, flow_.cols, flow_.cell, picture_.cols, full_[r & 1].data() + c * picture_.cols);
        spread_[r & 1] = r;
    }
    places(full_[i & 1].data(), full_[j & 1].data(), place - float(i), y, picture_.cols, picture_.cols,
           float(picture_.rows - 1), px_.data(), py_.data());
    fetch(picture_, trusted, flow_.cell, price_, y, px_.data(), py_.data(), m, v);
    return true;
}

FLUORONAV_LOOP
void worse_row(const float* y, const float* m0, const float* v0, const float* m1, const float* v1, float frame, int cols,
               float* __restrict out) {
#pragma GCC ivdep
    for (int x = 0; x < cols; ++x) {
        const float d0 = y[x] - m0[x], d1 = y[x] - m1[x];
        out[x] = d1 * d1 / (frame + v1[x]) - d0 * d0 / (frame + v0[x]);
    }
}

FLUORONAV_LOOP
void chosen_row(const float* worse, const float* m0, const float* v0, const float* m1, const float* v1, int cols,
                float* __restrict m, float* __restrict v) {
#pragma GCC ivdep
    for (int x = 0; x < cols; ++x) {
        m[x] = worse[x] < 0 ? m1[x] : m0[x];
        v[x] = worse[x] < 0 ? v1[x] : v0[x];
    }
}

void followed(const float* y, const Picture& state, const Flow& flow, float frame, float price, float* m, float* v) {
    const int rows = state.rows, cols = state.cols;
    each_row(rows, [&](int r0, int r1) {
        Mover mover(state, flow, price);
        Scratch scratch;
        Ring<float> m1(scratch, 8, rows, cols), v1(scratch, 8, rows, cols), worse(scratch, 8, rows, cols);
        std::vector<float> vertical(cols + 8), mean(cols);
        for (int r = std::max(0, r0 - 2); r < r1 + 2; ++r) {
            if (r < rows) {
                const std::size_t at = std::size_t(r) * cols;
                if (mover.row(r, m1.row(r), v1.row(r)))
                    worse_row(y + at, state.m + at, state.v + at, m1.row(r), v1.row(r), frame, cols, worse.row(r));
                else
                    std::fill(worse.row(r), worse.row(r) + cols, 0.0f);
                worse.repeat(r);
            }
            const int c = r - 2;
            if (c < r0) continue;
            const std::size_t at = std::size_t(c) * cols;
            const float* near[5];
            for (int k = 0; k < 5; ++k) near[k] = worse.at(c + k - 2);
            binomial_row(near, 1, cols, vertical.data(), mean.data());
            chosen_row(mean.data(), state.m + at, state.v + at, m1.row(c), v1.row(c), cols, m + at, v + at);
        }
    });
}

}  // namespace fluoronav
