// SPDX-License-Identifier: Apache-2.0
// Filters that the classical and the learned denoiser share (see kernels.hpp for their taps).
// Bound by the line averages: 12 x 11 additions a pixel from cache.
#include "filters.hpp"

namespace fluoronav {

constexpr int kTile = 256;  // columns at a time

FLUORONAV_CLONES
static void innovation_rows(const float* y, const float* m, const float* v, float frame, Padded& raw, int r0, int r1) {
    for (int r = r0; r < r1; ++r) {
        float* __restrict out = raw.row(r);
        const std::size_t at = std::size_t(r) * raw.cols;
        for (int x = 0; x < raw.cols; ++x) out[x] = (y[at + x] - m[at + x]) / std::sqrt(frame + v[at + x]);
    }
}

void innovation(const float* y, const float* m, const float* v, float frame, Padded& raw) {
    each_row(raw.rows, [&](int r0, int r1) { innovation_rows(y, m, v, frame, raw, r0, r1); });
    raw.repeat_borders();
}

FLUORONAV_CLONES
static void blur3_rows(const Padded& in, Padded& out, int r0, int r1) {
    for (int r = r0; r < r1; ++r) blur3_row(in, r, out.row(r));
}

void blur3(const Padded& in, Padded& out) {
    each_row(in.rows, [&](int r0, int r1) { blur3_rows(in, out, r0, r1); });
    out.repeat_borders();
}

FLUORONAV_CLONES
static void line_rows(const Padded& in, float* out, int r0, int r1) {
    for (int x = 0; x < in.cols; x += kTile)
        for (int r = r0; r < r1; ++r)
            line_row(in, r, x, std::min(x + kTile, in.cols), out + std::size_t(r) * in.cols);
}

void lines(const Padded& in, float* out) {
    each_row(in.rows, [&](int r0, int r1) { line_rows(in, out, r0, r1); });
}

FLUORONAV_CLONES
static void split_rows(const Padded& whole, const Padded& once, Padded& detail, float* base, int r0, int r1) {
    for (int r = r0; r < r1; ++r) {
        float* b = base + std::size_t(r) * whole.cols;
        blur3_row(once, r, b);
        float* __restrict d = detail.row(r);
        const float* w = whole.row(r);
        for (int x = 0; x < whole.cols; ++x) d[x] = w[x] - b[x];
    }
}

void split(const float* m, Padded& detail, float* base) {
    static thread_local Padded own_whole, own_once;
    Padded &whole = own_whole, &once = own_once;  // thread_local: the team must see the caller's
    whole.shape(detail.rows, detail.cols);
    once.shape(detail.rows, detail.cols);
    each_row(whole.rows, [&](int r0, int r1) {
        for (int r = r0; r < r1; ++r)
            std::copy(m + std::size_t(r) * whole.cols, m + std::size_t(r + 1) * whole.cols, whole.row(r));
    });
    whole.repeat_borders();
    blur3(whole, once);
    each_row(whole.rows, [&](int r0, int r1) { split_rows(whole, once, detail, base, r0, r1); });
    detail.repeat_borders();
}

FLUORONAV_CLONES
static void magnitude_rows(const float* values, Padded& size, int r0, int r1) {
    for (int r = r0; r < r1; ++r) {
        float* __restrict to = size.row(r);
        const float* from = values + std::size_t(r) * size.cols;
        for (int x = 0; x < size.cols; ++x) to[x] = std::fabs(from[x]);
    }
}

FLUORONAV_CLONES
static void widen_rows(const Padded& size, float share, float* out, int r0, int r1) {
    for (int r = r0; r < r1; ++r) {
        const float *a = size.row(r - 1), *b = size.row(r), *c = size.row(r + 1);
        float* __restrict o = out + std::size_t(r) * size.cols;
        for (int x = 0; x < size.cols; ++x) {
            float m = a[x] > c[x] ? a[x] : c[x];
            m = b[x - 1] > m ? b[x - 1] : m;
            m = b[x + 1] > m ? b[x + 1] : m;
            m *= share;
            o[x] = b[x] > m ? b[x] : m;
        }
    }
}

void widened(const float* values, int rows, int cols, float share, std::vector<float>& out) {
    static thread_local Padded own;
    Padded& size = own;
    size.shape(rows, cols);
    out.resize(std::size_t(rows) * cols);
    float* to = out.data();
    each_row(rows, [&](int r0, int r1) { magnitude_rows(values, size, r0, r1); });
    size.repeat_borders();
    each_row(rows, [&](int r0, int r1) { widen_rows(size, share, to, r0, r1); });
}

}  // namespace fluoronav
