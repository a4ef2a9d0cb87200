// SPDX-License-Identifier: Apache-2.0
// The compiled half of registration/similarity.py: what it computes is said in correlation.hpp.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "../projector/native/arrays.hpp"
#include "agreement.hpp"
#include "blocks.hpp"
#include "correlation.hpp"
#include "doubt.hpp"
#include "intrinsics.hpp"
#include "measured.hpp"

namespace nb = nanobind;
using Picture = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Stack = nb::ndarray<const float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;

template <class T> static nb::object array(std::vector<T> values, std::vector<std::size_t> shape) {
    auto* kept = new std::vector<T>(std::move(values));
    nb::capsule owner(kept, [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
    return nb::cast(nb::ndarray<nb::numpy, T>(kept->data(), shape.size(), shape.data(), owner));
}

static void same(const Picture& a, const Picture& b) {
    if (a.shape(0) != b.shape(0) || a.shape(1) != b.shape(1)) throw nb::value_error("pictures of different shapes");
}

static correlation::Pictures pictures(const Picture& moving, const Picture& fixed, const Picture& weight, bool gradient) {
    same(moving, fixed), same(moving, weight);
    if (moving.shape(0) < 3 || moving.shape(1) < 3) throw nb::value_error("pictures need 3 x 3 pixels at least");
    return {moving.data(), fixed.data(), weight.data(), nullptr, static_cast<int>(moving.shape(0)),
            static_cast<int>(moving.shape(1)), 0, gradient, 0.0f, 0.0f};
}

static nb::tuple correlate(Picture moving, Picture fixed, Picture weight, std::optional<Stack> jacobian, bool gradient,
                           int patch, double floor, int score, int threads) {
    correlation::Pictures s = pictures(moving, fixed, weight, gradient);
    if (jacobian) {
        if (jacobian->shape(1) != moving.shape(0) || jacobian->shape(2) != moving.shape(1))
            throw nb::value_error("the jacobian belongs to another shape");
        if (jacobian->shape(0) % 3 || jacobian->shape(0) > correlation::MOST_COLUMNS)
            throw nb::value_error("a jacobian has 3, 6, ... 96 columns");
        s.jacobian = jacobian->data(), s.n = static_cast<int>(jacobian->shape(0));
    }
    std::optional<correlation::Correlation> made;
    {
        nb::gil_scoped_release release;
        made.emplace(s, correlation::Settings{gradient, patch, floor, score}, threads);
    }
    auto& r = made->result;
    const std::size_t cells = r.r.size(), m = static_cast<std::size_t>(s.n), scores = m ? r.scores.size() / m : 0;
    const double value = r.value;
    return nb::make_tuple(value, array(std::move(r.r), {cells}), array(std::move(r.mass), {cells}),
                          array(std::move(r.hessian), {m, m}), array(std::move(r.gradient), {m}),
                          array(std::move(r.scores), {scores, m}));
}

static nb::object robust(Picture moving, Picture fixed, Picture weight, bool gradient, int patch, double floor, int threads) {
    const correlation::Pictures s = pictures(moving, fixed, weight, gradient);
    std::vector<float> out(weight.data(), weight.data() + weight.size());
    {
        nb::gil_scoped_release release;
        correlation::Correlation(s, correlation::Settings{gradient, patch, floor, 0}, threads).robust(out.data());
    }
    return array(std::move(out), {moving.shape(0), moving.shape(1)});
}

static nb::tuple object_of(const correlation::Agreement& a) { return nb::make_tuple(a.median, a.share, a.patches); }

// See agreement.hpp: (median, share, patches).
static nb::tuple agreement(Picture moving, Picture fixed, Picture weight, Picture noise, bool gradient, int patch) {
    const correlation::Pictures s = pictures(moving, fixed, weight, gradient);
    same(moving, noise);
    nb::gil_scoped_release release;
    const auto found = correlation::agreement(s, noise.data(), patch);
    nb::gil_scoped_acquire again;
    return object_of(found);
}

static nb::tuple explained(Picture moving, Picture fixed, Picture weight, Picture noise, int patch, double enough, double more) {
    const correlation::Pictures s = pictures(moving, fixed, weight, true);
    same(moving, noise);
    nb::gil_scoped_release release;
    const auto found = correlation::explained(s, noise.data(), {patch, enough, more});
    nb::gil_scoped_acquire again;
    return object_of(found);
}

using Table = nb::ndarray<const double, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Numbers = nb::ndarray<const double, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

// See doubt.hpp: (n, n) from scores (cells, n) over a picture of rows x cols pixels.
static nb::object scatter(Table scores, double rows, double cols, double reach) {
    const int n = static_cast<int>(scores.shape(1));
    if (scores.shape(0) == 0) throw nb::value_error("a scatter needs a cell");
    std::vector<double> out(static_cast<std::size_t>(n) * n);
    doubt::scatter(scores.data(), n, n, {scores.shape(0), rows, cols, reach}, out.data());
    return array(std::move(out), {scores.shape(1), scores.shape(1)});
}

// (pose (6, 6), slip (6, 3)), or None where the picture does not see the pose.
static nb::object spread(Table hessian, Table scores, double rows, double cols, double reach, double misfit) {
    if (hessian.shape(0) != 9 || hessian.shape(1) != 9 || scores.shape(1) != 9 || scores.shape(0) == 0)
        throw nb::value_error("normal equations of nine numbers");
    doubt::Spread s;
    if (!doubt::spread(hessian.data(), scores.data(), {scores.shape(0), rows, cols, reach}, misfit, s)) return nb::none();
    return nb::make_tuple(array(std::vector<double>(s.pose[0], s.pose[0] + 36), {6, 6}), array(std::vector<double>(s.slip[0], s.slip[0] + 18), {6, 3}));
}

// ((trace, trace of the square) in space, the same in the plane) of the error at x (3,).
static nb::tuple moments(Numbers x, double sdd, double sod, double pitch_u, double pitch_v, Table pose, Table slip, Numbers prior, double tissue) {
    if (x.shape(0) != 3 || prior.shape(0) != 3 || pose.shape(0) != 6 || pose.shape(1) != 6 || slip.shape(0) != 6 || slip.shape(1) != 3)
        throw nb::value_error("a spread is (6, 6), (6, 3) and (3,)");
    const auto m = doubt::at(x.data(), {sdd, sod, pitch_u, pitch_v}, pose.data(), slip.data(), prior.data(), tissue);
    return nb::make_tuple(nb::make_tuple(m.first.first, m.first.second), nb::make_tuple(m.second.first, m.second.second));
}

static nb::object with_intrinsics(Stack jacobian, float sod, float step_u, float step_v, float cu, float cv) {
    if (jacobian.shape(0) != 6) throw nb::value_error("a jacobian of one body has 6 columns");
    const std::size_t h = jacobian.shape(1), w = jacobian.shape(2), apart = h * w;
    std::vector<float> out;
    {
        nb::gil_scoped_release release;
        out.reserve(9 * apart);
        out.assign(jacobian.data(), jacobian.data() + 6 * apart);
        out.resize(9 * apart);
        for (std::size_t y = 0; y < h; ++y)
            correlation::intrinsics_row(out.data() + y * w, static_cast<std::ptrdiff_t>(apart), static_cast<int>(w), sod, step_u,
                                        step_v, cu, (static_cast<float>(y) - cv) * step_v);
    }
    return array(std::move(out), {9, h, w});
}

// What blocks.hpp sums over k x k blocks, (4, rows, columns), and the smallest line integral that has weight (0 unless counts).
static nb::tuple block_sums(Picture picture, Picture weight, int k, bool counts, int threads) {
    same(picture, weight);
    if (k < 1 || picture.shape(0) < static_cast<std::size_t>(k) || picture.shape(1) < static_cast<std::size_t>(k))
        throw nb::value_error("blocks larger than the picture");
    const std::size_t rows = picture.shape(0) / k, cols = picture.shape(1) / k;
    projector::Buffer sums(4 * rows * cols);
    float least = 0;
    {
        nb::gil_scoped_release release;
        if (counts) least = blocks::smallest(picture.data(), weight.data(), picture.size());
        blocks::sum(picture.data(), weight.data(), static_cast<int>(picture.shape(1)), k, static_cast<int>(rows),
                    static_cast<int>(cols), counts, least, sums.p, threads);
    }
    return nb::make_tuple(projector::array(sums, {4, rows, cols}), least);
}

static nb::object coarser(Stack sums, int f) {
    if (f < 1 || sums.shape(0) != 4 || sums.shape(1) < static_cast<std::size_t>(f) || sums.shape(2) < static_cast<std::size_t>(f))
        throw nb::value_error("blocks larger than the picture");
    const std::size_t rows = sums.shape(1) / f, cols = sums.shape(2) / f;
    projector::Buffer out(4 * rows * cols), line(sums.shape(2));
    blocks::coarsen(sums.data(), static_cast<int>(sums.shape(1)), static_cast<int>(sums.shape(2)), f, static_cast<int>(rows),
                    static_cast<int>(cols), line.p, out.p);
    return projector::array(out, {4, rows, cols});
}

static nb::tuple block_means(Stack sums, int k, bool counts, float least) {
    if (sums.shape(0) != 4) throw nb::value_error("no sums over blocks");
    const std::size_t rows = sums.shape(1), cols = sums.shape(2);
    projector::Buffer out(rows * cols), weight(rows * cols);
    blocks::means(sums.data(), static_cast<int>(rows * cols), k, counts, least, out.p, weight.p);
    return nb::make_tuple(projector::array(out, {rows, cols}), projector::array(weight, {rows, cols}));
}

static nb::tuple block_halves(Stack sums, int k, bool counts, float least) {
    if (sums.shape(0) != 4) throw nb::value_error("no sums over blocks");
    const std::size_t rows = sums.shape(1), cols = sums.shape(2);
    projector::Buffer out(rows * cols), noise(rows * cols), weight(rows * cols);
    blocks::halves(sums.data(), static_cast<int>(rows * cols), k, counts, least, out.p, noise.p, weight.p);
    return nb::make_tuple(projector::array(out, {rows, cols}), projector::array(weight, {rows, cols}),
                          projector::array(noise, {rows, cols}));
}

using Valid = nb::ndarray<const bool, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

// (rows, columns) means or line integrals over k x k pixels, and their weights: see measured.hpp.
template <class T>
static nb::tuple measured(nb::ndarray<const T, nb::ndim<2>, nb::c_contig, nb::device::cpu> values, std::optional<Valid> valid,
                          int k, float dark, float floor, std::optional<float> logarithm, int threads) {
    if (k < 1 || values.shape(0) < static_cast<std::size_t>(k) || values.shape(1) < static_cast<std::size_t>(k))
        throw nb::value_error("blocks larger than the picture");
    if (valid && (valid->shape(0) != values.shape(0) || valid->shape(1) != values.shape(1)))
        throw nb::value_error("pictures of different shapes");
    const std::size_t rows = values.shape(0) / k, cols = values.shape(1) / k;
    projector::Buffer out(rows * cols), weight(rows * cols);
    {
        nb::gil_scoped_release release;
        blocks::measure(values.data(), valid ? reinterpret_cast<const std::uint8_t*>(valid->data()) : nullptr,
                        static_cast<int>(values.shape(1)), k, static_cast<int>(rows), static_cast<int>(cols),
                        blocks::Law{dark, floor, logarithm.has_value(), logarithm.value_or(0.0f)}, out.p, weight.p, threads);
    }
    return nb::make_tuple(projector::array(out, {rows, cols}), projector::array(weight, {rows, cols}));
}

NB_MODULE(_similarity, m) {
    m.def("measured", &measured<std::uint16_t>, nb::arg("values").noconvert(), nb::arg("valid").none(), nb::arg("k"), nb::arg("dark"),
          nb::arg("floor"), nb::arg("logarithm").none(), nb::arg("threads"));
    m.def("measured", &measured<float>, nb::arg("values").noconvert(), nb::arg("valid").none(), nb::arg("k"), nb::arg("dark"),
          nb::arg("floor"), nb::arg("logarithm").none(), nb::arg("threads"));
    m.def("correlate", &correlate, nb::arg("moving"), nb::arg("fixed"), nb::arg("weight"), nb::arg("jacobian").none(),
          nb::arg("gradient"), nb::arg("patch"), nb::arg("floor"), nb::arg("score"), nb::arg("threads"));
    m.def("robust", &robust, nb::arg("moving"), nb::arg("fixed"), nb::arg("weight"), nb::arg("gradient"), nb::arg("patch"),
          nb::arg("floor"), nb::arg("threads"));
    m.def("agreement", &agreement, nb::arg("moving"), nb::arg("fixed"), nb::arg("weight"), nb::arg("noise"), nb::arg("gradient"),
          nb::arg("patch"));
    m.def("explained", &explained, nb::arg("moving"), nb::arg("fixed"), nb::arg("weight"), nb::arg("noise"), nb::arg("patch"),
          nb::arg("enough"), nb::arg("more"));
    m.def("scatter", &scatter, nb::arg("scores"), nb::arg("rows"), nb::arg("cols"), nb::arg("reach"));
    m.def("spread", &spread, nb::arg("hessian"), nb::arg("scores"), nb::arg("rows"), nb::arg("cols"), nb::arg("reach"), nb::arg("misfit"));
    m.def("moments", &moments, nb::arg("x"), nb::arg("sdd_mm"), nb::arg("sod_mm"), nb::arg("pitch_u"), nb::arg("pitch_v"), nb::arg("pose"),
          nb::arg("slip"), nb::arg("prior"), nb::arg("tissue"));
    m.def("with_intrinsics", &with_intrinsics, nb::arg("jacobian"), nb::arg("sod_mm"), nb::arg("slope_u"), nb::arg("slope_v"),
          nb::arg("cu"), nb::arg("cv"));
    m.def("block_sums", &block_sums, nb::arg("picture"), nb::arg("weight"), nb::arg("k"), nb::arg("counts"), nb::arg("threads"));
    m.def("coarser", &coarser, nb::arg("sums"), nb::arg("f"));
    m.def("block_means", &block_means, nb::arg("sums"), nb::arg("k"), nb::arg("counts"), nb::arg("least"));
    m.def("block_halves", &block_halves, nb::arg("sums"), nb::arg("k"), nb::arg("counts"), nb::arg("least"));
}
