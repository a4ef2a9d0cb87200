// SPDX-License-Identifier: Apache-2.0
// The full-resolution half of the learned denoiser (models/networks/mixing.py has the formulas in torch).
//
// Features are statistics of 4x4 pixels; the nets answer with coefficients for 8x8 pixels, here made bilinear:
//   gate g = 1 / (1 + exp(-(A + S (z - 3.5)))), z the evidence of change of the pixel and its neighbors,
//   v' = (1 - g^3) v + g^3 * 30 R, a = max(v' / (v' + R), floor / R), m += a (y - m), v = (1 - a)^2 v' + a^2 R;
//   w = softmax over (mean, line, near, wide) of P_k + Q_k (line - 2.1) + R_k (point - 2.6), `near` at 0;
//   out = sum of w_k c_k, its variance v * w' C w with the covariances C of the candidates of noise alone.
// Blocks and cells beyond the picture repeat its last row and column. Bound by memory: about 20 passes.
#include "mixing.hpp"

#include <cstring>

#include "denoise.hpp"
#include "filters.hpp"
#include "team.hpp"

using namespace nanobind::literals;

namespace fluoronav {

constexpr int kPool = 4, kCell = 8;
constexpr float kCap = 12.0f, kGone = kUnknown;
constexpr int kTimeFeatures = 7, kTimeOutputs = 3, kSpaceFeatures = 7, kSpaceOutputs = 9, kCandidates = 4;

// exp to 2e-7 relative between -40 and 40, clamped there: 2^n by bits, the rest by a polynomial (Cephes expf).
static FLUORONAV_INLINE float exponential(float x) {
    x = x < -40.0f ? -40.0f : (x > 40.0f ? 40.0f : x);
    const float scaled = x * 1.44269504088896341f;
    const int n = int(scaled + (scaled >= 0 ? 0.5f : -0.5f));
    const float f = (x - float(n) * 0.693359375f) + float(n) * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * f + 1.3981999507e-3f;
    p = p * f + 8.3334519073e-3f;
    p = p * f + 4.1665795894e-2f;
    p = p * f + 1.6666665459e-1f;
    p = p * f + 5.0000001201e-1f;
    p = p * f * f + f + 1.0f;
    const std::int32_t bits = (n + 127) << 23;
    float power;
    std::memcpy(&power, &bits, 4);
    return p * power;
}

static FLUORONAV_INLINE float clamp(float x, float low, float high) { return x < low ? low : (x > high ? high : x); }

// One row of a coarse picture (cells of 8 pixels, bilinear about their middles) at full resolution.
// `mixed` holds the two rows of cells blended, one more cell repeated at both ends.
FLUORONAV_LOOP
static void cells_row(const float* coarse, int h, int w, int row, int cols, std::vector<float>& mixed, float* __restrict out) {
    const float at = (float(row) + 0.5f) / kCell - 0.5f;
    const float below = at < 0 ? 0 : at;
    int i = int(below);
    i = i < h - 1 ? i : h - 1;
    const int j = i + 1 < h ? i + 1 : h - 1;
    const float t = below - float(i);
    const float *a = coarse + std::size_t(i) * w, *b = coarse + std::size_t(j) * w;
    mixed.resize(std::size_t(w) + 2);
    for (int x = 0; x < w; ++x) mixed[x + 1] = (1 - t) * a[x] + t * b[x];
    mixed[0] = mixed[1], mixed[w + 1] = mixed[w];
    const int last = cols / kCell * kCell;
    for (int k = 0; k < std::min(kCell / 2, cols); ++k) out[k] = mixed[0];
    for (int cell = 1, x = kCell / 2; x < last; ++cell, x += kCell) {  // from the middle of a cell to the next one's
        const float left = mixed[cell], right = mixed[cell + 1];
        for (int k = 0; k < kCell; ++k) {  // `out` has a cell to spare
            const float s = (float(k) + 0.5f) / kCell;
            out[x + k] = (1 - s) * left + s * right;
        }
    }
    for (int x = std::max(last + kCell / 2, 0); x < cols; ++x) out[x] = mixed[w];
}

// Mean and largest value of blocks of 4x4 pixels from four rows; `sum` and `high` are scratch of whole blocks.
FLUORONAV_LOOP
static void pool_row(const float* const* rows4, int cols, int blocks, float* __restrict sum, float* __restrict high,
                     float* __restrict mean, float* __restrict most) {
    const float *a = rows4[0], *b = rows4[1], *c = rows4[2], *d = rows4[3];
#pragma GCC ivdep
    for (int x = 0; x < cols; ++x) {
        sum[x] = (a[x] + b[x]) + (c[x] + d[x]);
        const float p = a[x] > b[x] ? a[x] : b[x], q = c[x] > d[x] ? c[x] : d[x];
        high[x] = p > q ? p : q;
    }
    for (int x = cols; x < blocks * kPool; ++x) sum[x] = sum[cols - 1], high[x] = high[cols - 1];
#pragma GCC ivdep
    for (int k = 0; k < blocks; ++k) {
        const float *s = sum + k * kPool, *h = high + k * kPool;
        mean[k] = ((s[0] + s[1]) + (s[2] + s[3])) * (1.0f / (kPool * kPool));
        const float p = h[0] > h[1] ? h[0] : h[1], q = h[2] > h[3] ? h[2] : h[3];
        most[k] = p > q ? p : q;
    }
}

static int cells_of(int n) { return (n + kCell - 1) / kCell; }

// Derived full-resolution rows that are pooled: filled by `Fill(r, lines)` into n lines of `cols`.
template <class Fill, class Take>
static void pooled(int rows, int cols, int count, Fill&& fill, Take&& take) {
    const int high = cells_of(rows) * 2, wide = cells_of(cols) * 2;
    each_row(high, [&](int b0, int b1) {
        std::vector<float> scratch(std::size_t(count) * kPool * cols), means(std::size_t(count) * wide), mosts(means.size());
        std::vector<float> sum(std::size_t(wide) * kPool), high(sum.size());
        for (int b = b0; b < b1; ++b) {
            for (int k = 0; k < kPool; ++k)
                fill(std::min(b * kPool + k, rows - 1), &scratch[std::size_t(k) * count * cols]);
            for (int c = 0; c < count; ++c) {
                const float* four[kPool];
                for (int k = 0; k < kPool; ++k) four[k] = &scratch[(std::size_t(k) * count + c) * cols];
                pool_row(four, cols, wide, sum.data(), high.data(), &means[std::size_t(c) * wide], &mosts[std::size_t(c) * wide]);
            }
            take(b, wide, means.data(), mosts.data());
        }
    });
}

// --------------------------------------------------------------------------------------------------
// Time

FLUORONAV_LOOP
static void time_lines(const float* y, const float* z, const float* m, const float* v, float frame, float scale, int cols,
                       float* __restrict out) {
    float *__restrict zs = out, *__restrict ds = out + cols, *__restrict d2 = out + 2 * cols, *__restrict vs = out + 3 * cols;
    for (int x = 0; x < cols; ++x) {
        zs[x] = std::fabs(z[x]) * scale;
        const float d = (y[x] - m[x]) / std::sqrt(frame + v[x]);
        ds[x] = d;
        d2[x] = d * d;
        vs[x] = v[x] / (v[x] + frame);
    }
}

// (7, blocks, blocks) features of the net in time.
static Out3 time_features(In y, In z, In m, In v, float frame, float scale, In busy, In lined) {
    const int rows = int(y.shape(0)), cols = int(y.shape(1)), high = cells_of(rows) * 2, wide = cells_of(cols) * 2;
    Out3 out = make3(kTimeFeatures, high, wide);
    nb::gil_scoped_release free;
    float* f = out.data();
    const std::size_t plane = std::size_t(high) * wide;
    pooled(rows, cols, 4,
           [&](int r, float* to) {
               const std::size_t at = std::size_t(r) * cols;
               time_lines(y.data() + at, z.data() + at, m.data() + at, v.data() + at, frame, scale, cols, to);
           },
           [&](int b, int n, const float* mean, const float* most) {
               for (int x = 0; x < n; ++x) {
                   float* o = f + std::size_t(b) * n + x;
                   o[0] = std::min(most[x], kCap) * 0.25f;
                   o[plane] = std::min(mean[x], kCap) * 0.5f;
                   o[2 * plane] = clamp(mean[n + x], -4, 4) * 2;
                   o[3 * plane] = std::log1p(mean[2 * n + x]);
                   o[4 * plane] = mean[3 * n + x];
               }
           });
    std::copy(busy.data(), busy.data() + plane, f + 5 * plane);
    std::copy(lined.data(), lined.data() + plane, f + 6 * plane);
    return out;
}

FLUORONAV_LOOP
static void time_row(const float* __restrict y, const float* __restrict z, const float* __restrict m,
                     const float* __restrict v, const float* __restrict at, const float* __restrict slope,
                     const float* __restrict least, int cols, float frame, float scale, float* __restrict m_out,
                     float* __restrict v_out, float* __restrict gate) {
    for (int x = 0; x < cols; ++x) {
        float strength = z[x] * scale;
        strength = strength < kCap ? strength : kCap;
        const float g = 1.0f / (1.0f + exponential(-(at[x] + slope[x] * (strength - 3.5f))));
        const float opened = g * g * g;  // a gate that is ajar must not give back ignorance
        const float ignorance = (1 - opened) * v[x] + opened * kGone * frame;
        float a = ignorance / (ignorance + frame);
        const float floor = least[x] / frame;
        a = a > floor ? a : floor;
        m_out[x] = m[x] + a * (y[x] - m[x]);
        v_out[x] = (1 - a) * (1 - a) * ignorance + a * a * frame;
        gate[x] = g;
    }
}

static nb::tuple mix_time(In y, In z, In m, In v, float frame, float scale, In3 coefficients) {
    const int rows = int(y.shape(0)), cols = int(y.shape(1));
    const int h = int(coefficients.shape(1)), w = int(coefficients.shape(2));
    Out m_out = make(rows, cols), v_out = make(rows, cols), gate = make(rows, cols);
    {
        nb::gil_scoped_release free;
        static thread_local std::vector<float> own;
        std::vector<float>& strength = own;
        strength.resize(std::size_t(rows) * cols);
        widened(z.data(), rows, cols, strength.data());
        each_row(rows, [&](int r0, int r1) {
            std::vector<float> full(std::size_t(kTimeOutputs) * cols + kCell), mixed;
            for (int r = r0; r < r1; ++r) {
                for (int c = 0; c < kTimeOutputs; ++c)
                    cells_row(coefficients.data() + std::size_t(c) * h * w, h, w, r, cols, mixed, &full[std::size_t(c) * cols]);
                const std::size_t at = std::size_t(r) * cols;
                time_row(y.data() + at, strength.data() + at, m.data() + at, v.data() + at, &full[0], &full[cols],
                         &full[2 * std::size_t(cols)], cols, frame, scale, m_out.data() + at, v_out.data() + at,
                         gate.data() + at);
            }
        });
    }
    return nb::make_tuple(m_out, v_out, gate);
}

// --------------------------------------------------------------------------------------------------
// Space

FLUORONAV_LOOP
static void normalized(const float* __restrict along, const float* __restrict v, std::size_t from, std::size_t to, float scale,
                       float* __restrict out) {
    for (std::size_t i = from; i < to; ++i) out[i] = along[i] * scale / std::sqrt(v[i]);
}

FLUORONAV_LOOP
static void space_lines(const float* m, const float* v, const float* base, const float* wide, const float* lined, const float* g,
                        float point_scale, int cols, float* __restrict out) {
#pragma GCC ivdep
    for (int x = 0; x < cols; ++x) {
        const float inverse = 1.0f / std::sqrt(v[x]);
        const float line = lined[x], point = std::fabs(m[x] - base[x]) * point_scale * inverse;
        const float scale = (base[x] - wide[x]) * inverse;
        out[x] = line < kCap ? line : kCap;
        out[cols + x] = point < kCap ? point : kCap;
        out[2 * cols + x] = std::fabs(scale);
        out[3 * cols + x] = scale;
        out[4 * cols + x] = v[x];
        out[5 * cols + x] = g[x];
    }
}

// (near, wide, line means, line evidence of a pixel and its neighbors, features (7, blocks, blocks)).
static nb::tuple space_features(In m, In v, In gate, float line_scale, float point_scale) {
    const int rows = int(m.shape(0)), cols = int(m.shape(1)), high = cells_of(rows) * 2, wide_blocks = cells_of(cols) * 2;
    Out base = make(rows, cols), wide = make(rows, cols), along = make(rows, cols), strength = make(rows, cols);
    Out3 out = make3(kSpaceFeatures, high, wide_blocks);
    {
        nb::gil_scoped_release free;
        static thread_local std::vector<float> own;
        std::vector<float>& normal = own;  // thread_local: the team must see the caller's
        normal.resize(std::size_t(rows) * cols);
        parts(m.data(), rows, cols, base.data(), along.data(), wide.data());
        each_row(rows, [&](int r0, int r1) {
            normalized(along.data(), v.data(), std::size_t(r0) * cols, std::size_t(r1) * cols, line_scale, normal.data());
        });
        widened(normal.data(), rows, cols, strength.data());
        float* f = out.data();
        const std::size_t plane = std::size_t(high) * wide_blocks;
        pooled(rows, cols, 6,
               [&](int r, float* to) {
                   const std::size_t at = std::size_t(r) * cols;
                   space_lines(m.data() + at, v.data() + at, base.data() + at, wide.data() + at, strength.data() + at,
                               gate.data() + at, point_scale, cols, to);
               },
               [&](int b, int n, const float* mean, const float* most) {
                   for (int x = 0; x < n; ++x) {
                       float* o = f + std::size_t(b) * n + x;
                       o[0] = most[x] * 0.25f;
                       o[plane] = mean[x] * 0.5f;
                       o[2 * plane] = mean[n + x] * 0.5f;
                       o[3 * plane] = std::min(4 * mean[2 * n + x], kCap) * 0.25f;
                       o[4 * plane] = clamp(4 * mean[3 * n + x], -kCap, kCap) * 0.25f;
                       o[5 * plane] = std::log(mean[4 * n + x]) / 3;
                       o[6 * plane] = mean[5 * n + x];
                   }
               });
    }
    return nb::make_tuple(base, wide, along, strength, out);
}

struct SpaceRow {
    const float *m, *v, *base, *wide, *along, *strength;
    float *clean, *variance;
    float* weights[kCandidates];  // may be null
};

FLUORONAV_LOOP
static void space_row(const SpaceRow& row, const float* __restrict c, const float* __restrict cov, int cols,
                      float point_scale) {
    const float *__restrict m = row.m, *__restrict v = row.v, *__restrict base = row.base, *__restrict wide = row.wide;
    const float *__restrict along = row.along, *__restrict strength = row.strength;
    float *__restrict clean = row.clean, *__restrict variance = row.variance;
    float *__restrict w0 = row.weights[0], *__restrict w1 = row.weights[1], *__restrict w3 = row.weights[3];
    const std::size_t n = cols;
#pragma GCC ivdep
    for (int x = 0; x < cols; ++x) {
        const float inverse = 1.0f / std::sqrt(v[x]);
        float line = strength[x], point = std::fabs(m[x] - base[x]) * point_scale * inverse;
        line = (line < kCap ? line : kCap) - 2.1f;
        point = (point < kCap ? point : kCap) - 2.6f;
        const float mean = exponential(c[x] + (c[n + x] + 2.0f) * line + (c[2 * n + x] + 1.0f) * point);
        const float best = exponential(c[3 * n + x] - 2.0f + (c[4 * n + x] + 1.0f) * line + c[5 * n + x] * point);
        const float far = exponential(c[6 * n + x] - 1.0f + (c[7 * n + x] - 1.0f) * line + (c[8 * n + x] - 0.5f) * point);
        const float total = 1.0f / (mean + best + 1.0f + far);
        const float a = mean * total, b = best * total, d = total, e = far * total;
        w0[x] = a, w1[x] = b, w3[x] = e;
        clean[x] = a * m[x] + b * (base[x] + along[x]) + d * base[x] + e * wide[x];
        const float left = a * (a * cov[0] + 2 * (b * cov[1] + d * cov[2] + e * cov[3])) +
                           b * (b * cov[5] + 2 * (d * cov[6] + e * cov[7])) + d * (d * cov[10] + 2 * e * cov[11]) + e * e * cov[15];
        variance[x] = v[x] * left;
    }
}

// (clean, variance, weights (3, rows, columns) of mean, line and wide; `near` has the rest).
static nb::tuple mix_space(In m, In v, In base, In wide, In along, In strength, float point_scale, In3 coefficients,
                           In covariance) {
    const int rows = int(m.shape(0)), cols = int(m.shape(1));
    const int h = int(coefficients.shape(1)), w = int(coefficients.shape(2));
    Out clean = make(rows, cols), variance = make(rows, cols);
    Out3 weights = make3(3, rows, cols);
    {
        nb::gil_scoped_release free;
        const std::size_t plane = std::size_t(rows) * cols;
        each_row(rows, [&](int r0, int r1) {
            std::vector<float> full(std::size_t(kSpaceOutputs) * cols + kCell), mixed;
            for (int r = r0; r < r1; ++r) {
                for (int c = 0; c < kSpaceOutputs; ++c)
                    cells_row(coefficients.data() + std::size_t(c) * h * w, h, w, r, cols, mixed, &full[std::size_t(c) * cols]);
                const std::size_t at = std::size_t(r) * cols;
                const SpaceRow row{m.data() + at, v.data() + at, base.data() + at, wide.data() + at, along.data() + at,
                                   strength.data() + at, clean.data() + at, variance.data() + at,
                                   {weights.data() + at, weights.data() + plane + at, nullptr, weights.data() + 2 * plane + at}};
                space_row(row, full.data(), covariance.data(), cols, point_scale);
            }
        });
    }
    return nb::make_tuple(clean, variance, weights);
}

void bind_mixing(nb::module_& module) {
    module.def("time_features", &time_features, "y"_a, "z"_a, "m"_a, "v"_a, "frame"_a, "scale"_a, "busy"_a, "lined"_a);
    module.def("mix_time", &mix_time, "y"_a, "z"_a, "m"_a, "v"_a, "frame"_a, "scale"_a, "coefficients"_a);
    module.def("space_features", &space_features, "m"_a, "v"_a, "gate"_a, "line_scale"_a, "point_scale"_a);
    module.def("mix_space", &mix_space, "m"_a, "v"_a, "base"_a, "wide"_a, "along"_a, "strength"_a,
               "point_scale"_a, "coefficients"_a, "covariance"_a);
}

}  // namespace fluoronav
