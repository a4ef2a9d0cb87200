// SPDX-License-Identifier: Apache-2.0
// The compiled halves of registration/descent.py and registration/follower.py: levels from coarse to fine in one call.
#include "descent.hpp"

#include <nanobind/ndarray.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <array>
#include <string>
#include <vector>

#include "../projector/native/plan.hpp"
#include "agreement.hpp"
#include "doubt.hpp"
#include "level.hpp"
#include "pyramid.hpp"

namespace nb = nanobind;

namespace descent {

using Picture = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Vector = nb::ndarray<const double, nb::shape<6>, nb::c_contig, nb::device::cpu>;
using Point = nb::ndarray<const double, nb::shape<3>, nb::c_contig, nb::device::cpu>;
using Matrix = nb::ndarray<const double, nb::shape<4, 4>, nb::c_contig, nb::device::cpu>;

static nb::object doubles(std::vector<double> values, std::vector<std::size_t> shape) {
    auto* kept = new std::vector<double>(std::move(values));
    nb::capsule owner(kept, [](void* p) noexcept { delete static_cast<std::vector<double>*>(p); });
    return nb::cast(nb::ndarray<nb::numpy, double>(kept->data(), shape.size(), shape.data(), owner));
}

static nb::object matrix_of(const projector::Pose& pose) {
    std::vector<double> out(16);
    projector::write_pose(pose, out.data());
    return doubles(std::move(out), {4, 4});
}

static projector::Pose pose_of(const Matrix& m) {
    projector::Pose out;
    for (int r = 0; r < 3; ++r) {
        for (int c = 0; c < 3; ++c) out.r[r][c] = m.data()[4 * r + c];
        out.t[r] = m.data()[4 * r + 3];
    }
    return out;
}

// The motion xi with exp(xi) @ from = to, turned by less than a half turn. Source: Murray, Li, Sastry 1994, eq. 2.39.
static std::vector<double> motion(const projector::Pose& from, const projector::Pose& to) {
    double r[3][3], t[3];
    for (int i = 0; i < 3; ++i) {
        for (int j = 0; j < 3; ++j) {
            r[i][j] = 0;
            for (int k = 0; k < 3; ++k) r[i][j] += to.r[i][k] * from.r[j][k];
        }
        t[i] = to.t[i];
        for (int k = 0; k < 3; ++k) t[i] -= r[i][k] * from.t[k];
    }
    const double twice[3] = {r[2][1] - r[1][2], r[0][2] - r[2][0], r[1][0] - r[0][1]};  // of axis times sine
    const double sine = std::sqrt(twice[0] * twice[0] + twice[1] * twice[1] + twice[2] * twice[2]), angle = std::atan2(sine, r[0][0] + r[1][1] + r[2][2] - 1);
    const double share = sine > 1e-12 ? angle / sine : 0.5, q = angle * angle;
    const double w[3] = {share * twice[0], share * twice[1], share * twice[2]}, along = w[0] * t[0] + w[1] * t[1] + w[2] * t[2];
    const double d = angle < 0.03 ? 1.0 / 12 + q / 720 + q * q / 30240 : (1 - angle * std::sin(angle) / (2 * (1 - std::cos(angle)))) / q;
    std::vector<double> out(w, w + 3);
    for (int i = 0; i < 3; ++i) {
        const int j = (i + 1) % 3, k = (i + 2) % 3;
        out.push_back(t[i] - 0.5 * (w[j] * t[k] - w[k] * t[j]) + d * (w[i] * along - q * t[i]));
    }
    return out;
}

// A level and the arrays that it points to.
struct Held {
    projector::Bytes bricks;
    Matrix index;
    Level level;
};

// (bricks, size, unit, axis, index_from_patient, C-arm, gradient, patch, floor, score, iterations, robust, tolerance_px).
// False where 32-bit offsets do not reach.
static bool level_of(const nb::tuple& t, const projector::Path& path, bool last, Held& out) {
    if (t.size() != 13) throw nb::value_error("a level is thirteen things");
    out.bricks = nb::cast<projector::Bytes>(t[0]), out.index = nb::cast<Matrix>(t[4]);
    const auto size = nb::cast<std::array<int, 3>>(t[1]);
    const auto n = nb::cast<std::array<double, 8>>(t[5]);
    Level& l = out.level;
    l.arm = {n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7]};
    if (l.h() < 3 || l.w() < 3) throw nb::value_error("pictures need 3 x 3 pixels at least");
    l.fixed = l.weight = nullptr;
    l.axis = nb::cast<int>(t[3]), l.index_from_patient = out.index.data();
    l.measure = {nb::cast<bool>(t[6]), nb::cast<int>(t[7]), nb::cast<double>(t[8]), nb::cast<int>(t[9])};
    l.iterations = nb::cast<int>(t[10]), l.robust = nb::cast<bool>(t[11]), l.tolerance_px = nb::cast<double>(t[12]);
    l.last = last;
    return projector::bricks_at(out.bricks, size[0], size[1], size[2], nb::cast<float>(t[2]), path.bricks, l.volume);
}

// False where 32-bit offsets do not reach.
static bool levels_of(const nb::list& levels, const projector::Path& path, std::vector<Held>& out) {
    if (levels.size() == 0) throw nb::value_error("a descent needs a level");
    out.resize(levels.size());
    for (std::size_t i = 0; i < out.size(); ++i)
        if (!level_of(nb::cast<nb::tuple>(levels[i]), path, i + 1 == out.size(), out[i])) return false;
    return true;
}

// Where levels lead, one after the other.
struct Found {
    projector::Pose pose, coarse;  // at the end, and before the last level
    std::vector<double> values;    // after each
    int renders = 0;
    std::optional<Descent> last;
};

// lean: a motion (xi) that is put before the last of several levels. False where the bricks do not serve a pose on the way.
static bool run(const std::vector<Level>& levels, const projector::Pose& start, const double* lean, int threads,
                const projector::Path& path, Found& out) {
    out.pose = start;
    try {
        for (std::size_t i = 0; i < levels.size(); ++i) {
            out.coarse = out.pose;
            if (i > 0 && i + 1 == levels.size()) out.pose = projector::moved(out.pose, lean);
            out.last.emplace(levels[i], path, threads);
            out.last->run(out.pose);
            out.values.push_back(out.last->likeness->result.value);
            out.renders += out.last->renders;
        }
    } catch (const NotServed&) {
        return false;
    }
    return true;
}

static int crew_of(int threads) { return std::min(std::max(threads, 1), projector::MOST); }

// (pose, motion since before the last level, values, renders, picture, hessian, gradient, scores)
static nb::tuple object_of(Found& found, const Level& last) {
    auto& r = found.last->likeness->result;
    const std::size_t cells = r.scores.size() / 9, h = static_cast<std::size_t>(last.h()), w = static_cast<std::size_t>(last.w());
    Pixels moving = found.last->take();
    return nb::make_tuple(matrix_of(found.pose), doubles(motion(found.coarse, found.pose), {6}), nb::tuple(nb::cast(found.values)), found.renders,
                          projector::array(*moving, {h, w}), doubles(std::move(r.hessian), {9, 9}),
                          doubles(std::move(r.gradient), {9}), doubles(std::move(r.scores), {cells, 9}));
}

// None where the bricks do not serve a pose on the way.
static nb::object descended(const nb::list& levels, const std::vector<std::pair<Picture, Picture>>& seen, Matrix start, Vector lean,
                            int threads, const std::string& name) {
    const projector::Path& path = projector::path_named(name);
    std::vector<Held> held;
    if (!levels_of(levels, path, held)) return nb::none();
    std::vector<Level> all;
    for (std::size_t i = 0; i < held.size(); ++i) {
        all.push_back(held[i].level);
        const auto &[fixed, weight] = seen.at(i);
        for (const Picture* p : {&fixed, &weight})
            if (p->shape(0) != static_cast<std::size_t>(all[i].h()) || p->shape(1) != static_cast<std::size_t>(all[i].w()))
                throw nb::value_error("pictures of different shapes");
        all[i].fixed = fixed.data(), all[i].weight = weight.data();
    }
    Found found;
    bool served;
    {
        nb::gil_scoped_release release;
        served = run(all, pose_of(start), lean.data(), crew_of(threads), path, found);
    }
    return served ? nb::object(object_of(found, all.back())) : nb::none();
}

// What is said about a pose beside the picture: see confidence.py.
struct Doubts {
    double reach, misfit, least;    // `_REACH`, `_MISFIT`, `_LEAST`
    std::array<double, 6> floor;    // variances that no pose falls below
    std::array<double, 3> prior;    // standard deviations of ln SDD and the principal point's u, v (px)
};

// The levels of one C-arm's pictures, and all that a frame needs beside its pixels.
class Follower {
public:
    // binnings: pixels that become one at each level, and for the gate
    Follower(const nb::list& levels, std::vector<int> binnings, int gate, std::array<double, 3> asked,
             std::array<double, 3> doubts, std::array<double, 6> floor, std::array<double, 3> prior, const std::string& path)
        : path_(projector::path_named(path)), binnings_(std::move(binnings)), gate_(gate),
          asked_{static_cast<int>(asked[0]), asked[1], asked[2]}, doubts_{doubts[0], doubts[1], doubts[2], floor, prior} {
        served_ = levels_of(levels, path_, held_);
        if (binnings_.size() != held_.size() || gate_ % binnings_.back()) throw nb::value_error("binnings of other levels");
    }

    // A frame: what `object_of` says, then (agreement, share, patches), the pose's spread (6, 6), its slip (6, 3), and the
    // moments of the error at a target in space and in the plane. None where an ordinary frame's way does not serve.
    nb::object follow(Picture picture, Picture weight, bool counts, Matrix start, Vector lean, Point target, double tissue,
                      int threads) const {
        const int h = static_cast<int>(picture.shape(0)), w = static_cast<int>(picture.shape(1)), crew = crew_of(threads);
        if (weight.shape(0) != picture.shape(0) || weight.shape(1) != picture.shape(1)) throw nb::value_error("pictures of different shapes");
        if (!served_ || h / gate_ < 3 || w / gate_ < 3) return nb::none();
        Found found;
        correlation::Agreement fit;
        doubt::Spread spread;
        std::pair<doubt::Moments, doubt::Moments> error;
        std::vector<Level> all;
        bool told;
        {
            nb::gil_scoped_release release;
            Pyramid pyramid(picture.data(), weight.data(), h, w, counts, binnings_, gate_, crew);
            for (std::size_t i = 0; i < held_.size(); ++i) {
                all.push_back(held_[i].level);
                pyramid.look(binnings_[i], all[i]);
            }
            told = carries(all.front()) && run(all, pose_of(start), lean.data(), crew, path_, found);
            if (told) {
                fit = pyramid.explained(found.last->picture(), all.back(), binnings_.back(), gate_, asked_);
                told = stated(found, all.back(), fit.median, target.data(), tissue, spread, error);
            }
        }
        if (!told) return nb::none();
        const double *pose = spread.pose[0], *slip = spread.slip[0];
        return nb::make_tuple(object_of(found, all.back()), nb::make_tuple(fit.median, fit.share, fit.patches),
                              doubles({pose, pose + 36}, {6, 6}), doubles({slip, slip + 18}, {6, 3}), error.first, error.second);
    }

private:
    const projector::Path& path_;
    std::vector<int> binnings_;
    int gate_;
    correlation::Asked asked_;
    Doubts doubts_;
    std::vector<Held> held_;
    bool served_ = false;

    // Whether there is anything in the picture: as Ladder.fault asks, whose words the caller has.
    static bool carries(const Level& level) {
        double mass = 0, count = 0, sum = 0, square = 0;
        for (std::size_t i = 0; i < level.pixels(); ++i) {
            mass += level.weight[i];
            if (!(level.weight[i] > 0)) continue;
            const double p = level.fixed[i];
            count += 1, sum += p, square += p * p;
        }
        if (mass < 0.05 * static_cast<double>(level.pixels()) || !(count > 0)) return false;
        const double mean = sum / count, variance = square / count - mean * mean;
        return variance > 1e-6 * std::max(1e-3, std::abs(mean)) * std::max(1e-3, std::abs(mean));
    }

    bool stated(const Found& found, const Level& last, double agreement, const double* target, double tissue, doubt::Spread& spread,
                std::pair<doubt::Moments, doubt::Moments>& error) const {
        const auto& r = found.last->likeness->result;
        const double q = std::max(agreement, 0.05), misfit = std::max(doubts_.least, doubts_.misfit * (1 / (q * q) - 1));
        for (const double v : r.hessian)
            if (!std::isfinite(v)) return false;
        if (!doubt::spread(r.hessian.data(), r.scores.data(), {r.scores.size() / 9, last.arm.h, last.arm.w, doubts_.reach}, misfit, spread))
            return false;
        for (int i = 0; i < 6; ++i) spread.pose[i][i] += doubts_.floor[i];
        double x[3];
        for (int i = 0; i < 3; ++i) {
            x[i] = found.pose.t[i];
            for (int j = 0; j < 3; ++j) x[i] += found.pose.r[i][j] * target[j];
        }
        error = doubt::at(x, {last.arm.sdd, last.arm.sod, last.arm.pu, last.arm.pv}, spread.pose[0], spread.slip[0], doubts_.prior.data(), tissue);
        return true;
    }
};

void add(nb::module_& m) {
    m.def("descended", &descended, nb::arg("levels"), nb::arg("seen"), nb::arg("start"), nb::arg("lean"), nb::arg("threads"), nb::arg("path"));
    nb::class_<Follower>(m, "Follower")
        .def(nb::init<const nb::list&, std::vector<int>, int, std::array<double, 3>, std::array<double, 3>, std::array<double, 6>,
                      std::array<double, 3>, const std::string&>(),
             nb::arg("levels"), nb::arg("binnings"), nb::arg("gate"), nb::arg("asked"), nb::arg("doubts"), nb::arg("floor"),
             nb::arg("prior"), nb::arg("path"))
        .def("follow", &Follower::follow, nb::arg("picture"), nb::arg("weight"), nb::arg("counts"), nb::arg("start"), nb::arg("lean"),
             nb::arg("target"), nb::arg("tissue"), nb::arg("threads"));
}

}  // namespace descent
