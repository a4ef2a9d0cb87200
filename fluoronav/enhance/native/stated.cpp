// SPDX-License-Identifier: Apache-2.0
// The full-resolution half of the stated uncertainty (fluoronav/enhance/stated.py says what for).
//
// cell_statistics: means over cells of 8x8 pixels of d = y - m, d^2, d times the mean of its neighbors to the right and
//   below, m, (forward difference of m)^2, v, f. Cells at the border hold what pixels they have.
// three_layers: the network that turns features of cells into the three terms.
// stated_variance: v' = s v + b + k |grad m|^2 with central differences, s, b, k bilinear between the middles of cells.
// Borders repeat. Bound by memory: four pictures read, then two read and one written; 1.3 ms at 1024x1024 on one core.
#include "stated.hpp"

#include <cstring>

#include "kernels.hpp"
#include "team.hpp"

using namespace nanobind::literals;

namespace fluoronav {

constexpr int kCell = 8, kStatistics = 7, kTerms = 3;
#if defined(__AVX512F__)  // cells of a row that go through the network together: one register of the processor
constexpr int kLanes = 16;
#elif defined(__AVX__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

static int cells_of(int n) { return (n + kCell - 1) / kCell; }

// Adds one row of pixels to sums of columns, one line of `stride` floats a statistic; *_next: the row below.
FLUORONAV_LOOP
static void add_row(const float* __restrict y, const float* __restrict m, const float* __restrict y_next,
                    const float* __restrict m_next, const float* __restrict v, const float* __restrict f, int cols,
                    std::size_t stride, float* __restrict sums) {
    float *__restrict s0 = sums, *__restrict s1 = sums + stride, *__restrict s2 = sums + 2 * stride,
          *__restrict s3 = sums + 3 * stride, *__restrict s4 = sums + 4 * stride, *__restrict s5 = sums + 5 * stride,
          *__restrict s6 = sums + 6 * stride;
#pragma GCC ivdep
    for (int x = 0; x < cols - 1; ++x) {
        const float d = y[x] - m[x], right = y[x + 1] - m[x + 1], below = y_next[x] - m_next[x];
        const float dx = m[x + 1] - m[x], dy = m_next[x] - m[x];
        s0[x] += d;
        s1[x] += d * d;
        s2[x] += d * (0.5f * (right + below));
        s3[x] += m[x];
        s4[x] += dx * dx + dy * dy;
        s5[x] += v[x];
        s6[x] += f[x];
    }
    const int x = cols - 1;  // the last pixel stands for its neighbor
    const float d = y[x] - m[x], below = y_next[x] - m_next[x], dy = m_next[x] - m[x];
    s0[x] += d;
    s1[x] += d * d;
    s2[x] += d * (0.5f * (d + below));
    s3[x] += m[x];
    s4[x] += dy * dy;
    s5[x] += v[x];
    s6[x] += f[x];
}

static Out3 cell_statistics(In y, In m, In v, In f) {
    const int rows = int(y.shape(0)), cols = int(y.shape(1)), high = cells_of(rows), wide = cells_of(cols);
    Out3 out = make3(kStatistics, high, wide);
    nb::gil_scoped_release free;
    float* to = out.data();
    each_row(high, [&](int c0, int c1) {
        const std::size_t stride = std::size_t(wide) * kCell;
        std::vector<float> sums(kStatistics * stride);
        for (int c = c0; c < c1; ++c) {
            std::fill(sums.begin(), sums.end(), 0.0f);
            const int r1 = std::min((c + 1) * kCell, rows);
            for (int r = c * kCell; r < r1; ++r) {
                const std::size_t at = std::size_t(r) * cols, next = std::size_t(std::min(r + 1, rows - 1)) * cols;
                add_row(y.data() + at, m.data() + at, y.data() + next, m.data() + next, v.data() + at, f.data() + at, cols,
                        stride, sums.data());
            }
            for (int s = 0; s < kStatistics; ++s)
                for (int x = 0; x < wide; ++x) {
                    const float* q = &sums[s * stride + std::size_t(x) * kCell];
                    const float total = ((q[0] + q[1]) + (q[2] + q[3])) + ((q[4] + q[5]) + (q[6] + q[7]));
                    const int pixels = (r1 - c * kCell) * std::min(kCell, cols - x * kCell);
                    to[(std::size_t(s) * high + c) * wide + x] = total / float(pixels);
                }
        }
    });
    return out;
}

// One row of a coarse picture (bilinear about the middles of its cells) at full resolution; out has a cell to spare.
FLUORONAV_LOOP
static void coarse_row(const float* __restrict a, const float* __restrict b, float t, int wide, int cols,
                       float* __restrict mixed, float* __restrict out) {
    for (int x = 0; x < wide; ++x) mixed[x + 1] = (1 - t) * a[x] + t * b[x];
    mixed[0] = mixed[1], mixed[wide + 1] = mixed[wide];
    for (int k = 0; k < kCell / 2; ++k) out[k] = mixed[0];
    for (int cell = 1, x = kCell / 2; x < cols; ++cell, x += kCell)  // from the middle of a cell to that of the next
        for (int k = 0; k < kCell; ++k) {
            const float s = (float(k) + 0.5f) / kCell;
            out[x + k] = (1 - s) * mixed[cell] + s * mixed[cell + 1];
        }
}

FLUORONAV_LOOP
static void stated_row(const float* __restrict above, const float* __restrict m, const float* __restrict below,
                       const float* __restrict v, const float* __restrict s, const float* __restrict b,
                       const float* __restrict k, int cols, float* __restrict out) {
    for (int x = 1; x < cols - 1; ++x) {
        const float dx = 0.5f * (m[x + 1] - m[x - 1]), dy = 0.5f * (below[x] - above[x]);
        out[x] = s[x] * v[x] + b[x] + k[x] * (dx * dx + dy * dy);
    }
    for (int x : {0, cols - 1}) {
        const float dx = 0.5f * (m[std::min(x + 1, cols - 1)] - m[std::max(x - 1, 0)]), dy = 0.5f * (below[x] - above[x]);
        out[x] = s[x] * v[x] + b[x] + k[x] * (dx * dx + dy * dy);
    }
}

static Out stated_variance(In m, In v, In3 terms) {
    const int rows = int(m.shape(0)), cols = int(m.shape(1)), high = int(terms.shape(1)), wide = int(terms.shape(2));
    Out out = make(rows, cols);
    nb::gil_scoped_release free;
    const std::size_t plane = std::size_t(high) * wide, stride = std::size_t(wide) * kCell + kCell;
    each_row(rows, [&](int r0, int r1) {
        std::vector<float> full(kTerms * stride), mixed(std::size_t(wide) + 2);
        for (int r = r0; r < r1; ++r) {
            const float at = std::max((float(r) + 0.5f) / kCell - 0.5f, 0.0f);
            const int i = std::min(int(at), high - 1), j = std::min(i + 1, high - 1);
            for (int t = 0; t < kTerms; ++t)
                coarse_row(terms.data() + t * plane + std::size_t(i) * wide, terms.data() + t * plane + std::size_t(j) * wide,
                           at - float(i), wide, cols, mixed.data(), &full[t * stride]);
            const float* row = m.data() + std::size_t(r) * cols;
            stated_row(r > 0 ? row - cols : row, row, r + 1 < rows ? row + cols : row, v.data() + std::size_t(r) * cols, &full[0],
                       &full[stride], &full[2 * stride], cols, out.data() + std::size_t(r) * cols);
        }
    });
    return out;
}

using Lanes = float __attribute__((vector_size(kLanes * sizeof(float))));

// One layer for some cells: out = W in + bias, rectified unless it is the last.
static FLUORONAV_INLINE void layer(const Lanes* in, const float* weight, const float* bias, int inputs, int outputs,
                                   bool rectified, Lanes* out) {
    for (int o = 0; o < outputs; ++o) {
        Lanes sum = Lanes{} + bias[o];
        for (int i = 0; i < inputs; ++i) sum += weight[o * inputs + i] * in[i];
        out[o] = rectified ? (sum > 0 ? sum : Lanes{}) : sum;
    }
}

struct Layers { const float *w0, *b0, *w1, *b1, *w2, *b2; int inputs, first, second, last; };

constexpr int kUnits = 32;  // of a layer, at most

// n cells of a row, in and out one plane a unit.
FLUORONAV_LOOP
static void three_layers_of(const float* in, std::size_t plane, int n, const Layers& net, float* out) {
    Lanes a[kUnits] = {}, b[kUnits];
    for (int i = 0; i < net.inputs; ++i) std::memcpy(&a[i], in + i * plane, std::size_t(n) * sizeof(float));
    layer(a, net.w0, net.b0, net.inputs, net.first, true, b);
    layer(b, net.w1, net.b1, net.first, net.second, true, a);
    layer(a, net.w2, net.b2, net.second, net.last, false, b);
    for (int o = 0; o < net.last; ++o) std::memcpy(out + o * plane, &b[o], std::size_t(n) * sizeof(float));
}

// Three layers over the features of all cells; numpy would wake BLAS threads that stand in the way of the chain's.
static Out3 three_layers(In3 features, In w0, Table b0, In w1, Table b1, In w2, Table b2) {
    const int high = int(features.shape(1)), wide = int(features.shape(2));
    const Layers net{w0.data(), b0.data(), w1.data(), b1.data(), w2.data(), b2.data(), int(features.shape(0)),
                     int(w0.shape(0)), int(w1.shape(0)), int(w2.shape(0))};
    if (std::max({net.inputs, net.first, net.second, net.last}) > kUnits || int(w0.shape(1)) != net.inputs ||
        int(w1.shape(1)) != net.first || int(w2.shape(1)) != net.second || int(b0.shape(0)) != net.first ||
        int(b1.shape(0)) != net.second || int(b2.shape(0)) != net.last)
        throw nb::value_error("layers do not fit each other");
    Out3 out = make3(net.last, high, wide);
    nb::gil_scoped_release free;
    const std::size_t plane = std::size_t(high) * wide;
    each_row(high, [&](int r0, int r1) {
        for (int r = r0; r < r1; ++r)
            for (int x = 0; x < wide; x += kLanes) {
                const std::size_t at = std::size_t(r) * wide + x;
                three_layers_of(features.data() + at, plane, std::min(kLanes, wide - x), net, out.data() + at);
            }
    });
    return out;
}

void bind_stated(nb::module_& module) {
    module.def("cell_statistics", &cell_statistics, "y"_a, "m"_a, "v"_a, "f"_a);
    module.def("three_layers", &three_layers, "features"_a, "w0"_a, "b0"_a, "w1"_a, "b1"_a, "w2"_a, "b2"_a);
    module.def("stated_variance", &stated_variance, "m"_a, "v"_a, "terms"_a);
}

}  // namespace fluoronav
