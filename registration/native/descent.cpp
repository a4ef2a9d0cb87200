// SPDX-License-Identifier: Apache-2.0
// The compiled half of registration/descent.py: levels from coarse to fine in one call.
#include "descent.hpp"

#include <nanobind/ndarray.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <array>
#include <string>
#include <vector>

#include "../projector/native/plan.hpp"
#include "level.hpp"

namespace nb = nanobind;

namespace descent {

using Picture = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Vector = nb::ndarray<const double, nb::shape<6>, nb::c_contig, nb::device::cpu>;
using Matrix = nb::ndarray<const double, nb::shape<4, 4>, nb::c_contig, nb::device::cpu>;

static nb::object doubles(const std::vector<double>& values, std::vector<std::size_t> shape) {
    auto* kept = new std::vector<double>(values);
    nb::capsule owner(kept, [](void* p) noexcept { delete static_cast<std::vector<double>*>(p); });
    return nb::cast(nb::ndarray<nb::numpy, double>(kept->data(), shape.size(), shape.data(), owner));
}

// What keeps a level's arrays alive while the GIL is released.
struct Held {
    projector::Bytes bricks;
    Matrix index;
    Picture fixed, weight;
    Level level;
};

// (bricks, size, unit, axis, index_from_patient, C-arm, fixed, weight, gradient, patch, floor, score, iterations, robust,
// tolerance_px). False where 32-bit offsets do not reach.
static bool level_of(const nb::tuple& t, const projector::Path& path, bool last, Held& out) {
    if (t.size() != 15) throw nb::value_error("a level is fifteen things");
    out.bricks = nb::cast<projector::Bytes>(t[0]), out.index = nb::cast<Matrix>(t[4]);
    out.fixed = nb::cast<Picture>(t[6]), out.weight = nb::cast<Picture>(t[7]);
    const auto size = nb::cast<std::array<int, 3>>(t[1]);
    const auto n = nb::cast<std::array<double, 8>>(t[5]);
    Level& l = out.level;
    l.arm = {n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7]};
    if (l.h() < 3 || l.w() < 3) throw nb::value_error("pictures need 3 x 3 pixels at least");
    for (const Picture* p : {&out.fixed, &out.weight})
        if (p->shape(0) != static_cast<std::size_t>(l.h()) || p->shape(1) != static_cast<std::size_t>(l.w()))
            throw nb::value_error("pictures of different shapes");
    l.axis = nb::cast<int>(t[3]), l.index_from_patient = out.index.data();
    l.fixed = out.fixed.data(), l.weight = out.weight.data();
    l.measure = {nb::cast<bool>(t[8]), nb::cast<int>(t[9]), nb::cast<double>(t[10]), nb::cast<int>(t[11])};
    l.iterations = nb::cast<int>(t[12]), l.robust = nb::cast<bool>(t[13]), l.tolerance_px = nb::cast<double>(t[14]);
    l.last = last;
    return projector::bricks_at(out.bricks, size[0], size[1], size[2], nb::cast<float>(t[2]), path.bricks, l.volume);
}

// lean: a motion (xi) that is put before the last of several levels. None where the bricks do not serve a pose on the way.
static nb::object descended(const nb::list& levels, Matrix start, Vector lean, int threads, const std::string& name) {
    const projector::Path& path = projector::path_named(name);
    if (levels.size() == 0) throw nb::value_error("a descent needs a level");
    std::vector<Held> held(levels.size());
    for (std::size_t i = 0; i < held.size(); ++i)
        if (!level_of(nb::cast<nb::tuple>(levels[i]), path, i + 1 == held.size(), held[i])) return nb::none();
    projector::Pose pose, before;
    for (int r = 0; r < 3; ++r) {
        for (int c = 0; c < 3; ++c) pose.r[r][c] = start.data()[4 * r + c];
        pose.t[r] = start.data()[4 * r + 3];
    }
    const int crew = std::min(std::max(threads, 1), projector::MOST);
    std::vector<double> values;
    std::optional<Descent> last;
    int renders = 0;
    bool served = true;
    {
        nb::gil_scoped_release release;
        try {
            for (const Held& h : held) {
                before = pose;
                if (&h == &held.back() && held.size() > 1) pose = projector::moved(pose, lean.data());
                last.emplace(h.level, path, crew);
                last->run(pose);
                values.push_back(last->likeness->result.value);
                renders += last->renders;
            }
        } catch (const NotServed&) {
            served = false;
        }
    }
    if (!served) return nb::none();
    std::vector<double> matrix(16), coarse(16);
    projector::write_pose(pose, matrix.data()), projector::write_pose(before, coarse.data());
    const auto& r = last->likeness->result;
    const Level& level = held.back().level;
    Pixels moving = last->take();
    return nb::make_tuple(doubles(matrix, {4, 4}), doubles(coarse, {4, 4}), doubles(values, {values.size()}), renders,
                          projector::array(*moving, {static_cast<std::size_t>(level.h()), static_cast<std::size_t>(level.w())}),
                          doubles(r.hessian, {9, 9}), doubles(r.gradient, {9}), doubles(r.scores, {r.scores.size() / 9, 9}));
}

void add(nb::module_& m) {
    m.def("descended", &descended, nb::arg("levels"), nb::arg("start"), nb::arg("lean"), nb::arg("threads"), nb::arg("path"));
}

}  // namespace descent
