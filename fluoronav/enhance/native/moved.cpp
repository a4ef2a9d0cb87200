// SPDX-License-Identifier: Apache-2.0
// Two hypotheses about the state of every pixel: it stayed, or it moved along the flow. The second is the state at
// (x, y) - flow, by Catmull-Rom, its variance from the nearest pixel with the price of interpolation added; the one
// that explains the frame better over 5x5 binomial pixels is taken.
//
// Flow and trust are given for cells of F x F pixels, and are bilinear and constant between them. Neighbors nearly
// always move by the same whole pixels: eight at a time then read sixteen plain rows in place of gathered ones.
#include "moved.hpp"

#include <cstring>

#include "team.hpp"

namespace fluoronav {

constexpr int kLanes = 8;

using Eight = float __attribute__((vector_size(4 * kLanes)));
using Whole = std::int32_t __attribute__((vector_size(4 * kLanes)));

template <class To, class From>
static FLUORONAV_INLINE To load(const From* from) {
    To found;
    std::memcpy(&found, from, sizeof found);
    return found;
}

// Catmull-Rom weights of four neighbors at a fraction t.
template <class T>
static FLUORONAV_INLINE void cubic(T t, T& a, T& b, T& c, T& d) {
    a = t * (-0.5f + t * (1 - 0.5f * t));
    b = 1 + t * t * (-2.5f + 1.5f * t);
    c = t * (0.5f + t * (2 - 1.5f * t));
    d = t * t * (-0.5f + 0.5f * t);
}

static float value_at(const Picture& p, int ix, int iy, float tx, float ty) {
    float wx[4], wy[4], sum = 0;
    cubic(tx, wx[0], wx[1], wx[2], wx[3]);
    cubic(ty, wy[0], wy[1], wy[2], wy[3]);
    for (int b = 0; b < 4; ++b) {
        const float* line = p.m + std::size_t(std::min(std::max(iy + b - 1, 0), p.rows - 1)) * p.cols;
        const auto at = [&](int a) { return wx[a] * line[std::min(std::max(ix + a - 1, 0), p.cols - 1)]; };
        sum += wy[b] * ((at(0) + at(1)) + (at(2) + at(3)));
    }
    return sum;
}

// Where neighbors come from: whole pixels beyond their own column and row, and fractions.
struct Places { const std::int32_t *dx, *dy; const float *tx, *ty; };

// The least of whole pixels that eight neighbors moved by, and how much more the others: 0, 1 or kParted.
struct Group { int left, top, apart; };
constexpr int kParted = 2;

static FLUORONAV_INLINE Group group_of(const Places& at) {
    const Whole dx = load<Whole>(at.dx), dy = load<Whole>(at.dy);
    const Whole off = (dx - dx[0]) | (dy - dy[0]);
    std::uint64_t any[kLanes / 2];
    std::memcpy(any, &off, sizeof any);
    if (((any[0] | any[1]) | (any[2] | any[3])) == 0) return {dx[0], dy[0], 0};
    int left = dx[0], top = dy[0], right = left, bottom = top;
    for (int k = 1; k < kLanes; ++k) {
        left = std::min(left, dx[k]), right = std::max(right, dx[k]);
        top = std::min(top, dy[k]), bottom = std::max(bottom, dy[k]);
    }
    return {left, top, right > left + 1 || bottom > top + 1 ? kParted : 1};
}

// Eight neighbors that moved by the same whole pixels, far from the border: `corner` is the first one's upper left tap,
// `near` the pixel right below it.
static FLUORONAV_INLINE void eight(const float* corner, const float* near, int cols, const Places& at, float price, float* m,
                                   float* v) {
    const Eight tx = load<Eight>(at.tx), ty = load<Eight>(at.ty);
    Eight a, b, c, d, e, f, g, h;
    cubic(tx, a, b, c, d);
    cubic(ty, e, f, g, h);
    const auto across = [&](int row) {
        const float* l = corner + std::ptrdiff_t(row) * cols;
        return (a * load<Eight>(l) + b * load<Eight>(l + 1)) + (c * load<Eight>(l + 2) + d * load<Eight>(l + 3));
    };
    const Eight sum = (e * across(0) + f * across(1)) + (g * across(2) + h * across(3));
    const auto nearest = [&](const float* l) { return tx < 0.5f ? load<Eight>(l) : load<Eight>(l + 1); };
    const Eight doubt = (ty < 0.5f ? nearest(near) : nearest(near + cols)) + price;
    std::memcpy(m, &sum, sizeof sum);
    std::memcpy(v, &doubt, sizeof doubt);
}

// The same where some moved by one whole pixel more than the group's least, as a motion of nearly whole pixels has it: five
// taps by five, one of them without weight.
static FLUORONAV_INLINE void eight_apart(const float* corner, const float* near, int cols, const Places& at, const Group& group,
                                         float price, float* m, float* v) {
    const Eight tx = load<Eight>(at.tx), ty = load<Eight>(at.ty), none = {};
    const Whole right = load<Whole>(at.dx) != group.left, down = load<Whole>(at.dy) != group.top;
    Eight a, b, c, d, e, f, g, h;
    cubic(tx, a, b, c, d);
    cubic(ty, e, f, g, h);
    const Eight p = right ? none : a, q = right ? a : b, r = right ? b : c, s = right ? c : d, t = right ? d : none;
    const auto across = [&](int row) {
        const float* l = corner + std::ptrdiff_t(row) * cols;
        return ((p * load<Eight>(l) + q * load<Eight>(l + 1)) + (r * load<Eight>(l + 2) + s * load<Eight>(l + 3))) +
               t * load<Eight>(l + 4);
    };
    const Eight upper = (down ? none : e) * across(0) + (down ? e : f) * across(1);
    const Eight sum = (upper + ((down ? f : g) * across(2) + (down ? g : h) * across(3))) + (down ? h : none) * across(4);
    const Eight col = tx - __builtin_convertvector(right, Eight), row = ty - __builtin_convertvector(down, Eight);
    const auto nearest = [&](const float* l) {
        return col < 0.5f ? load<Eight>(l) : (col < 1.5f ? load<Eight>(l + 1) : load<Eight>(l + 2));
    };
    const Eight doubt = (row < 0.5f ? nearest(near) : (row < 1.5f ? nearest(near + cols) : nearest(near + 2 * cols))) + price;
    std::memcpy(m, &sum, sizeof sum);
    std::memcpy(v, &doubt, sizeof doubt);
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
                   std::int32_t* __restrict dx, std::int32_t* __restrict dy, float* __restrict tx, float* __restrict ty) {
    const float right = float(cols - 1), here = float(y);
#pragma GCC ivdep
    for (int x = 0; x < cols; ++x) {
        const float px = clamped(float(x) - ((1 - t) * above[x] + t * below[x]), right);
        const float py = clamped(here - ((1 - t) * above[stride + x] + t * below[stride + x]), bottom);
        const int ix = int(px), iy = int(py);
        dx[x] = ix - x, dy[x] = iy - y;
        tx[x] = px - float(ix), ty[x] = py - float(iy);
    }
}

// The pixels x to x + n, one by one: near the border, and where neighbors part.
static void fetch_each(const Picture& p, int x, int n, int y, const Places& at, float price, float* m, float* v) {
    for (int k = 0; k < n; ++k) {
        const int ix = x + k + at.dx[k], iy = y + at.dy[k];
        m[k] = value_at(p, ix, iy, at.tx[k], at.ty[k]);
        const int row = std::min(iy + (at.ty[k] < 0.5f ? 0 : 1), p.rows - 1), col = std::min(ix + (at.tx[k] < 0.5f ? 0 : 1), p.cols - 1);
        v[k] = p.v[std::size_t(row) * p.cols + col] + price;
    }
}

FLUORONAV_LOOP
static void fetch(const Picture& p, const std::uint8_t* trusted, int cell, float price, int y, const Places& row,
                  float* __restrict m, float* __restrict v) {
    for (int x = 0, c = 0; x < p.cols; x += kLanes) {
        const int n = std::min(kLanes, p.cols - x);
        while ((c + 1) * cell <= x) ++c;
        bool wanted = false;
        for (int k = c; k * cell < x + n; ++k) wanted |= trusted[k] != 0;
        if (!wanted) continue;
        const Places at{row.dx + x, row.dy + x, row.tx + x, row.ty + x};
        const Group group = n == kLanes ? group_of(at) : Group{0, 0, kParted};
        const int col = x + group.left, line = y + group.top;
        if (group.apart == kParted || col < 1 || line < 1 || col + kLanes + 3 > p.cols || line + 3 >= p.rows) {
            fetch_each(p, x, n, y, at, price, m + x, v + x);
            continue;
        }
        const std::size_t place = std::size_t(line) * p.cols + col;
        if (line + 4 < p.rows) {  // what the next row will need
            __builtin_prefetch(p.m + place + std::size_t(4) * p.cols);
            __builtin_prefetch(p.v + place + std::size_t(3) * p.cols);
        }
        if (group.apart == 0)
            eight(p.m + place - p.cols - 1, p.v + place, p.cols, at, price, m + x, v + x);
        else
            eight_apart(p.m + place - p.cols - 1, p.v + place, p.cols, at, group, price, m + x, v + x);
    }
    const std::size_t start = std::size_t(y) * p.cols;
    for (int x = 0, c = 0; x < p.cols; x += cell, ++c) {
        if (trusted[c]) continue;
        const int end = std::min(x + cell, p.cols);
        std::copy(p.m + start + x, p.m + start + end, m + x);
        std::copy(p.v + start + x, p.v + start + end, v + x);
    }
}

bool Mover::moves(int y) const {
    const std::uint8_t* trusted = trusted_at(y);
    return std::find(trusted, trusted + flow_.cols, 1) != trusted + flow_.cols;
}

void Mover::row(int y, float* m, float* v) {
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
           float(picture_.rows - 1), dx_.data(), dy_.data(), tx_.data(), ty_.data());
    fetch(picture_, trusted_at(y), flow_.cell, price_, y, {dx_.data(), dy_.data(), tx_.data(), ty_.data()}, m, v);
}

FLUORONAV_LOOP
static void worse_row(const float* y, const float* m0, const float* v0, const float* m1, const float* v1, float frame, int cols,
               float* __restrict out) {
#pragma GCC ivdep
    for (int x = 0; x < cols; ++x) {
        const float d0 = y[x] - m0[x], d1 = y[x] - m1[x];
        const float s0 = frame + v0[x], s1 = frame + v1[x];
        out[x] = (d1 * d1 * s0 - d0 * d0 * s1) / (s0 * s1);
    }
}

FLUORONAV_LOOP
static void chosen_row(const float* worse, const float* m0, const float* v0, const float* m1, const float* v1, int cols,
                float* __restrict m, float* __restrict v) {
#pragma GCC ivdep
    for (int x = 0; x < cols; ++x) {
        m[x] = worse[x] < 0 ? m1[x] : m0[x];
        v[x] = worse[x] < 0 ? v1[x] : v0[x];
    }
}

Followed::Followed(Scratch& scratch, const float* y, const Picture& state, const Flow& flow, float frame, float price)
    : y_(y), state_(state), frame_(frame), mover_(state, flow, price), m_(scratch, 8, state.rows, state.cols),
      v_(scratch, 8, state.rows, state.cols), worse_(scratch, 8, state.rows, state.cols),
      vertical_(scratch.take<float>(state.cols + 8)), mean_(scratch.take<float>(state.cols)) {}

void Followed::move(int y) {
    const std::size_t at = std::size_t(y) * state_.cols;
    moved_[y & 7] = mover_.moves(y);
    if (moved_[y & 7]) {
        mover_.row(y, m_.row(y), v_.row(y));
        worse_row(y_ + at, state_.m + at, state_.v + at, m_.row(y), v_.row(y), frame_, state_.cols, worse_.row(y));
    } else {
        std::fill(worse_.row(y), worse_.row(y) + state_.cols, 0.0f);
    }
    worse_.repeat(y);
}

bool Followed::choose(int y, float* m, float* v) {
    if (!moved_[y & 7]) return false;
    const float* near[5];
    for (int k = 0; k < 5; ++k) near[k] = worse_.at(y + k - 2);
    binomial_row(near, 1, state_.cols, vertical_, mean_);
    const std::size_t at = std::size_t(y) * state_.cols;
    chosen_row(mean_, state_.m + at, state_.v + at, m_.row(y), v_.row(y), state_.cols, m, v);
    return true;
}

void followed(const float* y, const Picture& state, const Flow& flow, float frame, float price, float* m, float* v) {
    const int rows = state.rows, cols = state.cols;
    each_row(rows, [&](int r0, int r1) {
        Scratch scratch;
        Followed from(scratch, y, state, flow, frame, price);
        for (int r = std::max(0, r0 - 2); r < r1 + 2; ++r) {
            if (r < rows) from.move(r);
            const int c = r - 2;
            if (c < r0) continue;
            const std::size_t at = std::size_t(c) * cols;
            if (from.choose(c, m + at, v + at)) continue;
            std::copy(state.m + at, state.m + at + cols, m + at);
            std::copy(state.v + at, state.v + at + cols, v + at);
        }
    });
}

}  // namespace fluoronav
