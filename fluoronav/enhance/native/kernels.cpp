// SPDX-License-Identifier: Apache-2.0
// The compiled loops of the enhancement chain: what goes into the filters, what comes out, and the doors to Python.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include <cstring>

#include "contrast.hpp"
#include "denoise.hpp"
#include "filters.hpp"
#include "mixing.hpp"
#include "stated.hpp"
#include "team.hpp"

using namespace nanobind::literals;

namespace fluoronav {

// --------------------------------------------------------------------------------------------------
// Before the filters

FLUORONAV_LOOP
static void add_row(const float* __restrict from, int cols, float* __restrict sums) {
    for (int x = 0; x < cols; ++x) sums[x] += from[x];
}

// Means over cells of `cell` x `cell` pixels (fewer at the far borders) of rows that `row(r)` makes.
template <class Row>
static void pool(int rows, int cols, int cell, Row&& row, float* small) {
    const int high = (rows + cell - 1) / cell, wide = (cols + cell - 1) / cell;
    each_row(high, [&](int c0, int c1) {
        Scratch scratch;
        float* sums = scratch.take<float>(cols);
        for (int c = c0; c < c1; ++c) {
            const int end = std::min((c + 1) * cell, rows);
            std::fill(sums, sums + cols, 0.0f);
            for (int r = c * cell; r < end; ++r) add_row(row(r), cols, sums);
            for (int k = 0; k < wide; ++k) {
                const int x1 = std::min((k + 1) * cell, cols);
                float sum = 0;
                for (int x = k * cell; x < x1; ++x) sum += sums[x];
                small[std::size_t(c) * wide + k] = sum / float((x1 - k * cell) * (end - c * cell));
            }
        }
    }, 8);
}

static Out cells_of(int rows, int cols, int cell) {
    if (cell < 1) throw nb::value_error("cell must be at least 1");
    return make((rows + cell - 1) / cell, (cols + cell - 1) / cell);
}

template <class Pixel>
using Pixels = nb::ndarray<const Pixel, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

template <class Pixel, class Entry>
static void take_row(const Pixel* __restrict pixels, int cols, const Entry* __restrict table, std::uint32_t last,
                     Entry* __restrict out) {
    for (int x = 0; x < cols; ++x) out[x] = table[std::min(std::uint32_t(pixels[x]), last)];
}

// Pixels in the scale of unit noise (what lies beyond the table is its last entry), and means of their cells.
template <class Pixel>
static nb::tuple stabilized(Pixels<Pixel> pixels, Table table, int cell) {
    const int rows = int(pixels.shape(0)), cols = int(pixels.shape(1));
    const std::uint32_t last = std::uint32_t(table.shape(0)) - 1;
    Out out = make(rows, cols), small = cells_of(rows, cols, cell);
    {
        nb::gil_scoped_release free;
        const auto row = [&](int r) {
            float* o = out.data() + std::size_t(r) * cols;
            take_row(pixels.data() + std::size_t(r) * cols, cols, table.data(), last, o);
            return o;
        };
        pool(rows, cols, cell, row, small.data());
    }
    return nb::make_tuple(out, small);
}

static Out pooled_of(In y, int cell) {
    const int rows = int(y.shape(0)), cols = int(y.shape(1));
    Out small = cells_of(rows, cols, cell);
    nb::gil_scoped_release free;
    pool(rows, cols, cell, [&](int r) { return y.data() + std::size_t(r) * cols; }, small.data());
    return small;
}

// --------------------------------------------------------------------------------------------------
// The filters

static Out evidence_of(In y, In m, In v, float frame) {
    const int rows = int(y.shape(0)), cols = int(y.shape(1));
    Out out = make(rows, cols);
    nb::gil_scoped_release free;
    evidence(y.data(), m.data(), v.data(), frame, rows, cols, out.data());
    return out;
}

static nb::tuple parts_of(In m) {
    const int rows = int(m.shape(0)), cols = int(m.shape(1));
    Out near = make(rows, cols), along = make(rows, cols), wide = make(rows, cols);
    {
        nb::gil_scoped_release free;
        parts(m.data(), rows, cols, near.data(), along.data(), wide.data());
    }
    return nb::make_tuple(near, along, wide);
}

static Flow flow_of(const In3& px, const Flags& trusted, int cell, int rows, int cols) {
    if (px.shape(2) != 2 || px.shape(0) != trusted.shape(0) || px.shape(1) != trusted.shape(1))
        throw nb::value_error("flow is (rows, columns, 2) and trusted (rows, columns) of the same cells");
    if (cell < 1 || int(px.shape(0)) != (rows + cell - 1) / cell || int(px.shape(1)) != (cols + cell - 1) / cell)
        throw nb::value_error("the cells of the flow do not cover the picture");
    return {px.data(), trusted.data(), int(trusted.shape(0)), int(trusted.shape(1)), cell};
}

// The state (mean, variance) that explains a frame better: as it was, or moved along the flow.
static nb::tuple followed_of(In y, In m, In v, float frame, In3 px, Flags trusted, int cell, float price) {
    const int rows = int(y.shape(0)), cols = int(y.shape(1));
    const Flow flow = flow_of(px, trusted, cell, rows, cols);
    Out m_out = make(rows, cols), v_out = make(rows, cols);
    {
        nb::gil_scoped_release free;
        followed(y.data(), {m.data(), v.data(), rows, cols}, flow, frame, price, m_out.data(), v_out.data());
    }
    return nb::make_tuple(m_out, v_out);
}

static Rules rules_of(const Table& numbers) {
    if (numbers.shape(0) * sizeof(float) != sizeof(Rules)) throw nb::value_error("rules do not fit");
    Rules rules;
    std::copy(numbers.data(), numbers.data() + numbers.shape(0), &rules.frame);
    return rules;
}

// `rules`: the numbers of Rules, in its order. (mean, variance, clean, variance of clean)
static nb::tuple denoised(In y, In m, In v, Table rules, std::optional<In3> px, std::optional<Flags> trusted,
                          int cell) {
    const int rows = int(y.shape(0)), cols = int(y.shape(1));
    const Rules law = rules_of(rules);
    Flow flow;
    if (px && trusted) flow = flow_of(*px, *trusted, cell, rows, cols);
    Out m_out = make(rows, cols), v_out = make(rows, cols), clean = make(rows, cols), left = make(rows, cols);
    {
        nb::gil_scoped_release free;
        denoise({m.data(), v.data(), rows, cols}, flow.px ? &flow : nullptr, law,
                {y.data(), m_out.data(), v_out.data(), clean.data(), left.data(), nullptr});
    }
    return nb::make_tuple(m_out, v_out, clean, left);
}

// The spatial part alone: (clean, its variance, share of its own detail that each pixel kept).
static nb::tuple spatial(In m, In v, Table rules) {
    const int rows = int(m.shape(0)), cols = int(m.shape(1));
    const Rules law = rules_of(rules);
    Out clean = make(rows, cols), left = make(rows, cols), kept = make(rows, cols);
    {
        nb::gil_scoped_release free;
        denoise({m.data(), v.data(), rows, cols}, nullptr, law,
                {nullptr, nullptr, nullptr, clean.data(), left.data(), kept.data()});
    }
    return nb::make_tuple(clean, left, kept);
}

// --------------------------------------------------------------------------------------------------
// After the filters

// Place in a table whose nodes lie `step` apart from `start` on; also takes NaN to 0.
static FLUORONAV_INLINE float place(float y, float start, float inverse, int nodes, int& k) {
    float at = (y - start) * inverse;
    at = at > 0 ? at : 0;
    at = at < float(nodes - 1) ? at : float(nodes - 1);
    k = int(at);
    k = k < nodes - 2 ? k : nodes - 2;
    return at - float(k);
}

FLUORONAV_LOOP
static void look_up(const float* __restrict y, std::size_t n, const float* __restrict table, int nodes, float start,
                    float step, float* __restrict out) {
    const float inverse = 1.0f / step;
    for (std::size_t i = 0; i < n; ++i) {
        int k;
        const float t = place(y[i], start, inverse, nodes, k);
        out[i] = (1 - t) * table[k] + t * table[k + 1];
    }
}

// Value of a table, linear between its nodes.
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

// Display grey of line integrals between low (255) and high (0), before it is held there: dense is dark.
static FLUORONAV_INLINE float shade(float p, float low, float scale) { return 255.5f - (p - low) * scale; }

static FLUORONAV_INLINE std::uint8_t grey_of(float shade) {
    const float g = shade > 0 ? shade : 0;
    return std::uint8_t(int(g < 255.0f ? g : 255.0f));
}

// Two tables at the same nodes, each with its rise to the next node: the four numbers that a pixel needs are one load of
// sixteen bytes where the compiler would gather them one by one, in more than twice the time.
using Four = float __attribute__((vector_size(16)));
struct Nodes { std::vector<Four> of; float start, inverse; };

template <class One, class Two>
static Nodes beside(std::size_t nodes, float start, float step, One&& one, Two&& two) {
    Nodes out{std::vector<Four>(nodes), start, 1.0f / step};
    for (std::size_t k = 0; k < nodes; ++k) {
        const std::size_t next = std::min(k + 1, nodes - 1);
        out.of[k] = Four{one(k), one(next) - one(k), two(k), two(next) - two(k)};
    }
    return out;
}

static FLUORONAV_INLINE Four node(const Four* of, std::uint32_t offset) {
    Four found;
    std::memcpy(&found, reinterpret_cast<const char*>(of) + offset, sizeof found);
    return found;
}

// Both tables, linear between their nodes, at n values; offset and t are scratch.
FLUORONAV_LOOP
static void look_up_two(const float* __restrict y, int n, const Nodes& nodes, std::uint32_t* __restrict offset,
                        float* __restrict t, float* __restrict first, float* __restrict second) {
    const float start = nodes.start, inverse = nodes.inverse, last = float(nodes.of.size() - 1);
    for (int x = 0; x < n; ++x) {
        float at = (y[x] - start) * inverse;
        at = at > 0 ? at : 0;  // also takes NaN to 0
        at = at < last ? at : last;
        const int k = int(at);
        t[x] = at - float(k);
        offset[x] = std::uint32_t(k) * sizeof(Four);
    }
    const Four* of = nodes.of.data();
    int x = 0;
    for (; x + 4 <= n; x += 4) {
        const Four a = node(of, offset[x]), b = node(of, offset[x + 1]), c = node(of, offset[x + 2]), d = node(of, offset[x + 3]);
        const Four ab = __builtin_shufflevector(a, b, 0, 4, 1, 5), cd = __builtin_shufflevector(c, d, 0, 4, 1, 5);
        const Four ef = __builtin_shufflevector(a, b, 2, 6, 3, 7), gh = __builtin_shufflevector(c, d, 2, 6, 3, 7);
        Four u;
        std::memcpy(&u, t + x, sizeof u);
        const Four one = __builtin_shufflevector(ab, cd, 0, 1, 4, 5) + u * __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
        const Four two = __builtin_shufflevector(ef, gh, 0, 1, 4, 5) + u * __builtin_shufflevector(ef, gh, 2, 3, 6, 7);
        std::memcpy(first + x, &one, sizeof one);
        std::memcpy(second + x, &two, sizeof two);
    }
    for (; x < n; ++x) {
        const Four a = node(of, offset[x]);
        first[x] = a[0] + t[x] * a[1];
        second[x] = a[2] + t[x] * a[3];
    }
}

FLUORONAV_LOOP
static void times_root(const float* __restrict variance, int n, float* __restrict sigma) {
    for (int x = 0; x < n; ++x) sigma[x] *= std::sqrt(variance[x]);
}

FLUORONAV_LOOP
static void grey_row(const float* __restrict shade, int n, std::uint8_t* __restrict out) {
    for (int x = 0; x < n; ++x) out[x] = grey_of(shade[x]);
}

using Grey = nb::ndarray<nb::numpy, std::uint8_t, nb::ndim<2>>;

static Grey make_grey(int rows, int cols) {
    Pool::Buffer* buffer = Pool::one().take((std::size_t(rows) * cols + 3) / 4);
    auto* data = reinterpret_cast<std::uint8_t*>(buffer->data());
    return Grey(data, {std::size_t(rows), std::size_t(cols)}, owner_of(buffer));
}

// Line integrals and their standard deviation of y, stored values and grey (between low and high) of `shown`; tables of
// stored values, line integrals and standard deviations at the same nodes.
static nb::tuple picture(In y, In variance, In shown, Table values, Table p, Table sigma, float start, float step,
                         float low, float high) {
    const int rows = int(y.shape(0)), cols = int(y.shape(1));
    const float scale = 255.0f / (high - low);
    const auto p_at = [&](std::size_t k) { return p.data()[k]; };
    const Nodes measured = beside(p.shape(0), start, step, p_at, [&](std::size_t k) { return sigma.data()[k]; });
    const Nodes seen = beside(p.shape(0), start, step, [&](std::size_t k) { return values.data()[k]; },
                              [&](std::size_t k) { return shade(p_at(k), low, scale); });
    Out out_values = make(rows, cols), out_p = make(rows, cols), out_sigma = make(rows, cols);
    Grey grey = make_grey(rows, cols);
    {
        nb::gil_scoped_release free;
        each_row(rows, [&](int r0, int r1) {
            Scratch scratch;
            auto* offset = scratch.take<std::uint32_t>(cols);
            float *t = scratch.take<float>(cols), *shades = scratch.take<float>(cols);
            for (int r = r0; r < r1; ++r) {
                const std::size_t at = std::size_t(r) * cols;
                look_up_two(y.data() + at, cols, measured, offset, t, out_p.data() + at, out_sigma.data() + at);
                times_root(variance.data() + at, cols, out_sigma.data() + at);
                look_up_two(shown.data() + at, cols, seen, offset, t, out_values.data() + at, shades);
                grey_row(shades, cols, grey.data() + at);
            }
        });
    }
    return nb::make_tuple(out_values, out_p, out_sigma, grey);
}

using GreyTable = nb::ndarray<const std::uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

// Entries of a table of grey at every pixel (the last one beyond it).
template <class Pixel>
static Grey taken(Pixels<Pixel> pixels, GreyTable table) {
    const int rows = int(pixels.shape(0)), cols = int(pixels.shape(1));
    const std::uint32_t last = std::uint32_t(table.shape(0)) - 1;
    Grey grey = make_grey(rows, cols);
    nb::gil_scoped_release free;
    each_row(rows, [&](int r0, int r1) {
        const std::size_t at = std::size_t(r0) * cols;
        take_row(pixels.data() + at, (r1 - r0) * cols, table.data(), last, grey.data() + at);
    });
    return grey;
}

static Grey window(In p, float low, float high) {
    const int rows = int(p.shape(0)), cols = int(p.shape(1));
    Grey grey = make_grey(rows, cols);
    nb::gil_scoped_release free;
    each_row(rows, [&](int r0, int r1) {
        const float scale = 255.0f / (high - low);
        for (std::size_t i = std::size_t(r0) * cols; i < std::size_t(r1) * cols; ++i)
            grey.data()[i] = grey_of(shade(p.data()[i], low, scale));
    });
    return grey;
}

// The modules that this processor can run, the best last; asked of the portable one.
static std::vector<const char*> paths() {
    std::vector<const char*> found{"portable"};
#if defined(__x86_64__) && defined(__GNUC__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2")) found.push_back("avx2");
    // what x86-64-v4 asks for beside AVX2 (each processor with AVX-512BW has v3)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2") &&
        __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        found.push_back("avx512");
#endif
    return found;
}

}  // namespace fluoronav

NB_MODULE(FLUORONAV_MODULE, module) {
    using namespace fluoronav;
    module.doc() = "Hot loops of the enhancement chain; see denoise.cpp for the formulas.";
    module.def("paths", &paths);
    module.def("stabilized", &stabilized<std::uint8_t>, "pixels"_a, "table"_a, "cell"_a);
    module.def("stabilized", &stabilized<std::uint16_t>, "pixels"_a, "table"_a, "cell"_a);
    module.def("pooled", &pooled_of, "y"_a, "cell"_a);
    module.def("evidence", &evidence_of, "y"_a, "m"_a, "v"_a, "frame"_a);
    module.def("parts", &parts_of, "m"_a);
    module.def("followed", &followed_of, "y"_a, "m"_a, "v"_a, "frame"_a, "flow"_a, "trusted"_a, "cell"_a, "price"_a);
    module.def("denoised", &denoised, "y"_a, "m"_a, "v"_a, "rules"_a, "flow"_a.none(), "trusted"_a.none(), "cell"_a);
    module.def("spatial", &spatial, "m"_a, "v"_a, "rules"_a);
    module.def("lookup", &lookup, "y"_a, "table"_a, "start"_a, "step"_a);
    module.def("picture", &picture, "y"_a, "variance"_a, "shown"_a, "values"_a, "p"_a, "sigma"_a, "start"_a, "step"_a,
               "low"_a, "high"_a);
    module.def("taken", &taken<std::uint8_t>, "pixels"_a, "table"_a);
    module.def("taken", &taken<std::uint16_t>, "pixels"_a, "table"_a);
    module.def("window", &window, "p"_a, "low"_a, "high"_a);
    module.def("set_threads", [](int threads) { Team::one().size(threads); }, "threads"_a);
    module.def("threads", [] { return Team::one().size(); });
    bind_mixing(module);
    bind_contrast(module);
    bind_stated(module);
}
