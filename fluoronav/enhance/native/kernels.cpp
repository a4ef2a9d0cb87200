// SPDX-License-Identifier: Apache-2.0
// The hot loops of the enhancement chain, in the variance-stabilized domain (noise of a frame has unit variance).
//
// temporal: a Kalman filter a pixel. State m, variance v (in units of the frame's). The innovation
//   d = y - m is blurred by a 3x3 binomial and averaged along twelve line directions of 11 pixels; the
//   largest mean over its standard deviation is the evidence of change z. Evidence opens the gate g,
//   the gate gives the state back its ignorance, v' = (1 - g) v + g * kUnknown * R, and then
//   a = max(v' / (v' + R), floor / R), m += a d, v = (1 - a)^2 v' + a^2 R; R is the frame's own variance, 1 unless it is a noisy one. A line moves: along it z is 3 to 4 times what a
//   single pixel shows, so a wire of half the noise's height a pixel is seen in the frame it moves in.
// spatial: m = base + detail with a 5x5 binomial base; detail is kept where it stands along a line (or
//   alone) above what variance v explains, or beside such a line; `least` of it stays everywhere.
//
// Bound by the line averages: 12 x 11 additions a pixel from cache.
#include "filters.hpp"
#include "contrast.hpp"
#include "mixing.hpp"

using namespace nanobind::literals;

namespace fluoronav {

constexpr float kShared = 1.0f;
constexpr float kUnknown = 30.0f;  // variance of a pixel that has just changed: the new frame counts 30 : 1

FLUORONAV_CLONES
static void update(const float* __restrict y, const float* __restrict evidence, const float* __restrict m,
                   const float* __restrict v, std::size_t from, std::size_t to, float frame, float scale, float low,
                   float high, float floor, float* __restrict m_out, float* __restrict v_out) {
    for (std::size_t i = from; i < to; ++i) {
        const float z = std::fabs(evidence[i]) * scale;
        const float g = smoothstep(z, low, high);
        const float ignorance = (1 - g) * v[i] + g * kUnknown * frame;
        float a = ignorance / (ignorance + frame);
        const float least = floor / frame;
        a = a > least ? a : least;
        m_out[i] = m[i] + a * (y[i] - m[i]);
        v_out[i] = (1 - a) * (1 - a) * ignorance + a * a * frame;
    }
}

// Evidence of change of y against a state: signed line mean of the blurred, normalized innovation.
static Out evidence(In y, In m, In v, float frame) {
    const int rows = int(y.shape(0)), cols = int(y.shape(1));
    static thread_local Padded raw, soft;
    raw.shape(rows, cols);
    soft.shape(rows, cols);
    Out out = make(rows, cols);
    {
        nb::gil_scoped_release free;
        innovation(y.data(), m.data(), v.data(), frame, raw);
        blur3(raw, soft);
        lines(soft, out.data());
    }
    return out;
}

static nb::tuple temporal(In y, In z, In m, In v, float frame, float scale, float low, float high, float floor) {
    const int rows = int(y.shape(0)), cols = int(y.shape(1));
    Out m_out = make(rows, cols), v_out = make(rows, cols);
    {
        nb::gil_scoped_release free;
        static thread_local std::vector<float> wide;
        widened(z.data(), rows, cols, kShared, wide);
        const float* strength = wide.data();
        each_row(rows, [&](int r0, int r1) {
            update(y.data(), strength, m.data(), v.data(), std::size_t(r0) * cols, std::size_t(r1) * cols, frame, scale,
                   low, high, floor, m_out.data(), v_out.data());
        });
    }
    return nb::make_tuple(m_out, v_out);
}

FLUORONAV_CLONES
static void join(const Padded& detail, const float* __restrict wide, const float* __restrict v,
                 float* __restrict base, float* __restrict kept, float line_scale, float point_scale, float low,
                 float high, float least, int r0, int r1) {
    for (int r = r0; r < r1; ++r) {
        const std::size_t at = std::size_t(r) * detail.cols;
        const float* __restrict d = detail.row(r);
        for (int x = 0; x < detail.cols; ++x) {
            const std::size_t i = at + x;
            const float sd = std::sqrt(v[i]);
            const float z_line = wide[i] * line_scale / sd, z_point = std::fabs(d[x]) * point_scale / sd;
            const float s_line = smoothstep(z_line, low, high), s_point = smoothstep(z_point, low, high + 1);
            float s = s_line > s_point ? s_line : s_point;
            s = s > least ? s : least;
            base[i] += s * d[x];
            kept[i] = s;
        }
    }
}

static nb::tuple spatial(In m, In v, float line_scale, float point_scale, float low, float high, float least) {
    const int rows = int(m.shape(0)), cols = int(m.shape(1));
    static thread_local Padded detail;
    detail.shape(rows, cols);
    Out out = make(rows, cols), kept = make(rows, cols);
    {
        nb::gil_scoped_release free;
        static thread_local std::vector<float> along;
        along.resize(std::size_t(rows) * cols);
        split(m.data(), detail, out.data());
        lines(detail, along.data());
        static thread_local std::vector<float> wide;
        widened(along.data(), rows, cols, kShared, wide);
        const float* strength = wide.data();
        Padded& inside = detail;  // thread_local: the team must see the caller's
        each_row(rows, [&, strength](int r0, int r1) {
            join(inside, strength, v.data(), out.data(), kept.data(), line_scale, point_scale, low, high, least, r0, r1);
        });
    }
    return nb::make_tuple(out, kept);
}

// (base, detail, line means of the detail): what `spatial` decides on, to calibrate it on noise alone.
static nb::tuple parts(In m) {
    const int rows = int(m.shape(0)), cols = int(m.shape(1));
    static thread_local Padded detail;
    detail.shape(rows, cols);
    Out base = make(rows, cols), plain = make(rows, cols), along = make(rows, cols);
    {
        nb::gil_scoped_release free;
        split(m.data(), detail, base.data());
        lines(detail, along.data());
        for (int r = 0; r < rows; ++r)
            std::copy(detail.row(r), detail.row(r) + cols, plain.data() + std::size_t(r) * cols);
    }
    return nb::make_tuple(base, plain, along);
}

// Catmull-Rom weights of four neighbors at a fraction t.
static inline void cubic(float t, float* w) {
    w[0] = t * (-0.5f + t * (1 - 0.5f * t));
    w[1] = 1 + t * t * (-2.5f + 1.5f * t);
    w[2] = t * (0.5f + t * (2 - 1.5f * t));
    w[3] = t * t * (-0.5f + 0.5f * t);
}

// The state moved along the flow (from the last frame to this one) where that is trusted, with `price` added
// to its variance; elsewhere as it is.
static void move_rows(const float* from, const float* doubt, const float* flow, const std::uint8_t* trusted, float price,
                      int rows, int cols, int r0, int r1, float* m_out, float* v_out) {
    for (int r = r0; r < r1; ++r)
        for (int x = 0; x < cols; ++x) {
            const std::size_t i = std::size_t(r) * cols + x;
            m_out[i] = from[i];
            v_out[i] = doubt[i];
            if (!trusted[i]) continue;
            const float fx = std::min(std::max(x - flow[2 * i], 0.0f), float(cols - 1));
            const float fy = std::min(std::max(r - flow[2 * i + 1], 0.0f), float(rows - 1));
            const int ix = int(fx), iy = int(fy);
            float wx[4], wy[4], sum = 0;
            cubic(fx - ix, wx);
            cubic(fy - iy, wy);
            if (ix > 0 && iy > 0 && ix + 2 < cols && iy + 2 < rows) {
                const float* l = from + std::size_t(iy - 1) * cols + ix - 1;
                for (int b = 0; b < 4; ++b, l += cols)
                    sum += wy[b] * ((wx[0] * l[0] + wx[1] * l[1]) + (wx[2] * l[2] + wx[3] * l[3]));
            } else for (int b = 0; b < 4; ++b) {
                const float* line = from + std::size_t(std::min(std::max(iy + b - 1, 0), rows - 1)) * cols;
                float part = 0;
                for (int a = 0; a < 4; ++a) part += wx[a] * line[std::min(std::max(ix + a - 1, 0), cols - 1)];
                sum += wy[b] * part;
            }
            m_out[i] = sum;
            v_out[i] = doubt[std::size_t(std::min(int(fy + 0.5f), rows - 1)) * cols +
                             std::min(int(fx + 0.5f), cols - 1)] + price;
        }
}

static nb::tuple moved(In m, In v, In3 flow, Flags trusted, float price) {
    const int rows = int(m.shape(0)), cols = int(m.shape(1));
    Out m_out = make(rows, cols), v_out = make(rows, cols);
    {
        nb::gil_scoped_release free;
        each_row(rows, [&](int r0, int r1) {
            move_rows(m.data(), v.data(), flow.data(), trusted.data(), price, rows, cols, r0, r1, m_out.data(), v_out.data());
        });
    }
    return nb::make_tuple(m_out, v_out);
}

// How much worse the second hypothesis about the state explains a frame, in units of expected variance.
FLUORONAV_CLONES
static void compare(const float* __restrict y, const float* __restrict m0, const float* __restrict v0,
                    const float* __restrict m1, const float* __restrict v1, float frame, Padded& out, int r0, int r1) {
    for (int r = r0; r < r1; ++r) {
        float* __restrict o = out.row(r);
        const std::size_t at = std::size_t(r) * out.cols;
        for (int x = 0; x < out.cols; ++x) {
            const std::size_t i = at + x;
            const float d0 = y[i] - m0[i], d1 = y[i] - m1[i];
            o[x] = d1 * d1 / (frame + v1[i]) - d0 * d0 / (frame + v0[i]);
        }
    }
}

FLUORONAV_CLONES
static void choose(const Padded& worse, const float* __restrict m0, const float* __restrict v0,
                   const float* __restrict m1, const float* __restrict v1, float* __restrict m, float* __restrict v,
                   int r0, int r1) {
    for (int r = r0; r < r1; ++r) {
        const float* __restrict w = worse.row(r);
        const std::size_t at = std::size_t(r) * worse.cols;
        for (int x = 0; x < worse.cols; ++x) {
            m[at + x] = w[x] < 0 ? m1[at + x] : m0[at + x];
            v[at + x] = w[x] < 0 ? v1[at + x] : v0[at + x];
        }
    }
}

// Of two hypotheses about the state, the one that explains the frame better over 5x5 binomial pixels.
static nb::tuple chosen(In y, In m0, In v0, In m1, In v1, float frame) {
    const int rows = int(m0.shape(0)), cols = int(m0.shape(1));
    static thread_local Padded own_worse, own_soft;
    Padded &worse = own_worse, &soft = own_soft;
    worse.shape(rows, cols);
    soft.shape(rows, cols);
    Out m = make(rows, cols), v = make(rows, cols);
    {
        nb::gil_scoped_release free;
        each_row(rows, [&](int r0, int r1) {
            compare(y.data(), m0.data(), v0.data(), m1.data(), v1.data(), frame, worse, r0, r1);
        });
        worse.repeat_borders();
        blur3(worse, soft);
        blur3(soft, worse);
        each_row(rows, [&](int r0, int r1) {
            choose(worse, m0.data(), v0.data(), m1.data(), v1.data(), m.data(), v.data(), r0, r1);
        });
    }
    return nb::make_tuple(m, v);
}

// Value of a table, linear between its nodes; `step` is the distance of two nodes from `start` on.
FLUORONAV_CLONES
static void look_up(const float* __restrict y, std::size_t n, const float* __restrict table, int nodes, float start,
                    float step, float* __restrict out) {
    const float inverse = 1.0f / step, last = float(nodes - 1);
    for (std::size_t i = 0; i < n; ++i) {
        float at = (y[i] - start) * inverse;
        at = at > 0 ? at : 0;  // also takes NaN to 0
        at = at < last ? at : last;
        int k = int(at);
        k = k < nodes - 2 ? k : nodes - 2;
        const float t = at - float(k);
        out[i] = (1 - t) * table[k] + t * table[k + 1];
    }
}

static Out lookup(In y, Table table, float start, float step) {
    const int rows = int(y.shape(0)), cols = int(y.shape(1));
    Out out = make(rows, cols);
    nb::gil_scoped_release free;
    each_row(rows, [&](int r0, int r1) {
        const std::size_t at = std::size_t(r0) * cols, n = std::size_t(r1 - r0) * cols;
        look_up(y.data() + at, n, table.data(), int(table.shape(0)), start, step, out.data() + at);
    });
    return out;
}

// Stored values, line integrals and their standard deviation of a clean picture, from three tables at once.
FLUORONAV_CLONES
static void look_up_three(const float* __restrict y, const float* __restrict variance, std::size_t n,
                          const float* __restrict a, const float* __restrict b, const float* __restrict c, int nodes,
                          float start, float step, float* __restrict values, float* __restrict p,
                          float* __restrict sigma) {
    const float inverse = 1.0f / step, last = float(nodes - 1);
    for (std::size_t i = 0; i < n; ++i) {
        float at = (y[i] - start) * inverse;
        at = at > 0 ? at : 0;
        at = at < last ? at : last;
        int k = int(at);
        k = k < nodes - 2 ? k : nodes - 2;
        const float t = at - float(k);
        values[i] = (1 - t) * a[k] + t * a[k + 1];
        p[i] = (1 - t) * b[k] + t * b[k + 1];
        sigma[i] = ((1 - t) * c[k] + t * c[k + 1]) * std::sqrt(variance[i]);
    }
}

static nb::tuple picture(In y, In variance, Table a, Table b, Table c, float start, float step) {
    const int rows = int(y.shape(0)), cols = int(y.shape(1));
    Out values = make(rows, cols), p = make(rows, cols), sigma = make(rows, cols);
    {
        nb::gil_scoped_release free;
        each_row(rows, [&](int r0, int r1) {
            const std::size_t at = std::size_t(r0) * cols, n = std::size_t(r1 - r0) * cols;
            look_up_three(y.data() + at, variance.data() + at, n, a.data(), b.data(), c.data(), int(a.shape(0)), start,
                          step, values.data() + at, p.data() + at, sigma.data() + at);
        });
    }
    return nb::make_tuple(values, p, sigma);
}

// Display grey of line integrals between low (255) and high (0): dense is dark.
FLUORONAV_CLONES
static void grey(const float* __restrict p, std::size_t n, float low, float scale, std::uint8_t* __restrict out) {
    for (std::size_t i = 0; i < n; ++i) {
        float g = 255.5f - (p[i] - low) * scale;
        g = g > 0 ? g : 0;
        g = g < 255.0f ? g : 255.0f;
        out[i] = std::uint8_t(int(g));
    }
}

static nb::ndarray<nb::numpy, std::uint8_t, nb::ndim<2>> window(In p, float low, float high) {
    const std::size_t rows = p.shape(0), cols = p.shape(1);
    auto* data = new std::uint8_t[rows * cols];
    nb::capsule owner(data, [](void* q) noexcept { delete[] static_cast<std::uint8_t*>(q); });
    {
        nb::gil_scoped_release free;
        each_row(int(rows), [&](int r0, int r1) {
            grey(p.data() + r0 * cols, std::size_t(r1 - r0) * cols, low, 255.0f / (high - low), data + r0 * cols);
        });
    }
    return nb::ndarray<nb::numpy, std::uint8_t, nb::ndim<2>>(data, {rows, cols}, owner);
}

}  // namespace fluoronav

NB_MODULE(_kernels, module) {
    module.doc() = "Hot loops of the enhancement chain; see kernels.cpp for the formulas.";
    module.def("evidence", &fluoronav::evidence, "y"_a, "m"_a, "v"_a, "frame"_a);
    module.def("temporal", &fluoronav::temporal, "y"_a, "evidence"_a, "m"_a, "v"_a, "frame"_a, "scale"_a, "low"_a,
               "high"_a, "floor"_a);
    module.def("parts", &fluoronav::parts, "m"_a);
    module.def("moved", &fluoronav::moved, "m"_a, "v"_a, "flow"_a, "trusted"_a, "price"_a);
    module.def("chosen", &fluoronav::chosen, "y"_a, "m0"_a, "v0"_a, "m1"_a, "v1"_a, "frame"_a);
    module.def("lookup", &fluoronav::lookup, "y"_a, "table"_a, "start"_a, "step"_a);
    module.def("picture", &fluoronav::picture, "y"_a, "variance"_a, "values"_a, "p"_a, "sigma"_a, "start"_a, "step"_a);
    module.def("window", &fluoronav::window, "p"_a, "low"_a, "high"_a);
    module.def("set_threads", [](int threads) { fluoronav::Team::one().size(threads); }, "threads"_a);
    module.def("threads", [] { return fluoronav::Team::one().size(); });
    fluoronav::bind_mixing(module);
    fluoronav::bind_contrast(module);
    module.def("spatial", &fluoronav::spatial, "m"_a, "v"_a, "line_scale"_a, "point_scale"_a, "low"_a, "high"_a, "least"_a);
}
