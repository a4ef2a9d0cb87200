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
#include "kernels.hpp"

#include <memory>
#include <mutex>

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

namespace nb = nanobind;
using namespace nb::literals;

namespace fluoronav {

using In = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Out = nb::ndarray<nb::numpy, float, nb::ndim<2>>;

constexpr int kTile = 256;         // columns at a time
constexpr float kShared = 1.0f;
constexpr float kUnknown = 30.0f;  // variance of a pixel that has just changed: the new frame counts 30 : 1

// Buffers that were given back, by size: a fresh 4 MB costs a thousand page faults, as long as a kernel takes.
class Pool {
  public:
    using Buffer = std::vector<float>;
    Buffer* take(std::size_t n) {
        const std::lock_guard<std::mutex> lock(mutex_);
        for (std::size_t i = free_.size(); i-- > 0;)
            if (free_[i]->size() == n) {
                Buffer* found = free_[i].release();
                free_.erase(free_.begin() + std::ptrdiff_t(i));
                return found;
            }
        return new Buffer(n);
    }
    void give(Buffer* buffer) {
        const std::lock_guard<std::mutex> lock(mutex_);
        free_.emplace_back(buffer);
        if (free_.size() > kKept) free_.erase(free_.begin());
    }

  private:
    static constexpr std::size_t kKept = 12;  // what one frame of the chain has in flight
    std::mutex mutex_;
    std::vector<std::unique_ptr<Buffer>> free_;
};

static Pool& pool() {
    static Pool* one = new Pool;  // never destroyed: arrays may outlive the module
    return *one;
}

static Out make(int rows, int cols) {
    Pool::Buffer* buffer = pool().take(std::size_t(rows) * cols);
    nb::capsule owner(buffer, [](void* p) noexcept { pool().give(static_cast<Pool::Buffer*>(p)); });
    return Out(buffer->data(), {std::size_t(rows), std::size_t(cols)}, owner);
}

FLUORONAV_CLONES
static void innovation(const float* y, const float* m, const float* v, float frame, Padded& raw) {
    for (int r = 0; r < raw.rows; ++r) {
        float* out = raw.row(r);
        const std::size_t at = std::size_t(r) * raw.cols;
        for (int x = 0; x < raw.cols; ++x) out[x] = (y[at + x] - m[at + x]) / std::sqrt(frame + v[at + x]);
    }
    raw.repeat_borders();
}

FLUORONAV_CLONES
static void blur3(const Padded& in, Padded& out) {
    for (int r = 0; r < in.rows; ++r) blur3_row(in, r, out.row(r));
    out.repeat_borders();
}

FLUORONAV_CLONES
static void lines(const Padded& in, float* out) {
    for (int x = 0; x < in.cols; x += kTile)
        for (int r = 0; r < in.rows; ++r)
            line_row(in, r, x, std::min(x + kTile, in.cols), out + std::size_t(r) * in.cols);
}

FLUORONAV_CLONES
static void update(const float* __restrict y, const float* __restrict evidence, const float* __restrict m,
                   const float* __restrict v, std::size_t n, float frame, float scale, float low, float high, float floor,
                   float* __restrict m_out, float* __restrict v_out) {
    for (std::size_t i = 0; i < n; ++i) {
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

// A pixel beside strong evidence shares it: the flanks of a line change with it.
FLUORONAV_CLONES
static void widen(const Padded& size, float share, float* out) {
    for (int r = 0; r < size.rows; ++r) {
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

// |values| widened by their neighbors.
static void widened(const float* values, int rows, int cols, std::vector<float>& out) {
    static thread_local Padded size;
    size.shape(rows, cols);
    out.resize(std::size_t(rows) * cols);
    for (int r = 0; r < rows; ++r) {
        float* __restrict to = size.row(r);
        const float* from = values + std::size_t(r) * cols;
        for (int x = 0; x < cols; ++x) to[x] = std::fabs(from[x]);
    }
    size.repeat_borders();
    widen(size, kShared, out.data());
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
        widened(z.data(), rows, cols, wide);
        update(y.data(), wide.data(), m.data(), v.data(), std::size_t(rows) * cols, frame, scale, low, high, floor,
               m_out.data(), v_out.data());
    }
    return nb::make_tuple(m_out, v_out);
}

// base = 5x5 binomial of m (two 3x3 ones); detail = m - base.
FLUORONAV_CLONES
static void split(const float* m, Padded& detail, float* base) {
    static thread_local Padded whole, once;
    whole.shape(detail.rows, detail.cols);
    once.shape(detail.rows, detail.cols);
    for (int r = 0; r < whole.rows; ++r)
        std::copy(m + std::size_t(r) * whole.cols, m + std::size_t(r + 1) * whole.cols, whole.row(r));
    whole.repeat_borders();
    blur3(whole, once);
    for (int r = 0; r < whole.rows; ++r) {
        float* b = base + std::size_t(r) * whole.cols;
        blur3_row(once, r, b);
        float* d = detail.row(r);
        const float* w = whole.row(r);
        for (int x = 0; x < whole.cols; ++x) d[x] = w[x] - b[x];
    }
    detail.repeat_borders();
}

FLUORONAV_CLONES
static void join(const Padded& detail, const float* __restrict wide, const float* __restrict v,
                 float* __restrict base, float* __restrict kept, float line_scale, float point_scale, float low,
                 float high, float least) {
    for (int r = 0; r < detail.rows; ++r) {
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
        widened(along.data(), rows, cols, wide);
        join(detail, wide.data(), v.data(), out.data(), kept.data(), line_scale, point_scale, low, high, least);
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
static nb::tuple moved(In m, In v, nb::ndarray<const float, nb::ndim<3>, nb::c_contig, nb::device::cpu> flow,
                       nb::ndarray<const std::uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu> trusted, float price) {
    const int rows = int(m.shape(0)), cols = int(m.shape(1));
    Out m_out = make(rows, cols), v_out = make(rows, cols);
    {
        nb::gil_scoped_release free;
        const float *from = m.data(), *doubt = v.data();
        for (int r = 0; r < rows; ++r)
            for (int x = 0; x < cols; ++x) {
                const std::size_t i = std::size_t(r) * cols + x;
                m_out.data()[i] = from[i];
                v_out.data()[i] = doubt[i];
                if (!trusted.data()[i]) continue;
                const float fx = std::min(std::max(x - flow.data()[2 * i], 0.0f), float(cols - 1));
                const float fy = std::min(std::max(r - flow.data()[2 * i + 1], 0.0f), float(rows - 1));
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
                m_out.data()[i] = sum;
                v_out.data()[i] = doubt[std::size_t(std::min(int(fy + 0.5f), rows - 1)) * cols +
                                        std::min(int(fx + 0.5f), cols - 1)] + price;
            }
    }
    return nb::make_tuple(m_out, v_out);
}

// How much worse the second hypothesis about the state explains a frame, in units of expected variance.
FLUORONAV_CLONES
static void compare(const float* __restrict y, const float* __restrict m0, const float* __restrict v0,
                    const float* __restrict m1, const float* __restrict v1, float frame, Padded& out) {
    for (int r = 0; r < out.rows; ++r) {
        float* __restrict o = out.row(r);
        const std::size_t at = std::size_t(r) * out.cols;
        for (int x = 0; x < out.cols; ++x) {
            const std::size_t i = at + x;
            const float d0 = y[i] - m0[i], d1 = y[i] - m1[i];
            o[x] = d1 * d1 / (frame + v1[i]) - d0 * d0 / (frame + v0[i]);
        }
    }
    out.repeat_borders();
}

FLUORONAV_CLONES
static void choose(const Padded& worse, const float* __restrict m0, const float* __restrict v0,
                   const float* __restrict m1, const float* __restrict v1, float* __restrict m, float* __restrict v) {
    for (int r = 0; r < worse.rows; ++r) {
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
    static thread_local Padded worse, soft;
    worse.shape(rows, cols);
    soft.shape(rows, cols);
    Out m = make(rows, cols), v = make(rows, cols);
    {
        nb::gil_scoped_release free;
        compare(y.data(), m0.data(), v0.data(), m1.data(), v1.data(), frame, worse);
        blur3(worse, soft);
        blur3(soft, worse);
        choose(worse, m0.data(), v0.data(), m1.data(), v1.data(), m.data(), v.data());
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

static Out lookup(In y, nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu> table, float start,
                  float step) {
    Out out = make(int(y.shape(0)), int(y.shape(1)));
    nb::gil_scoped_release free;
    look_up(y.data(), y.shape(0) * y.shape(1), table.data(), int(table.shape(0)), start, step, out.data());
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

using Table = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

static nb::tuple picture(In y, In variance, Table a, Table b, Table c, float start, float step) {
    const int rows = int(y.shape(0)), cols = int(y.shape(1));
    Out values = make(rows, cols), p = make(rows, cols), sigma = make(rows, cols);
    {
        nb::gil_scoped_release free;
        look_up_three(y.data(), variance.data(), std::size_t(rows) * cols, a.data(), b.data(), c.data(),
                      int(a.shape(0)), start, step, values.data(), p.data(), sigma.data());
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
        grey(p.data(), rows * cols, low, 255.0f / (high - low), data);
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
    module.def("spatial", &fluoronav::spatial, "m"_a, "v"_a, "line_scale"_a, "point_scale"_a, "low"_a, "high"_a, "least"_a);
}
