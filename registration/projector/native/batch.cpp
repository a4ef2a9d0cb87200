// SPDX-License-Identifier: Apache-2.0
// Thousands of poses in one call, shared among the crew: pictures of them, their correlation with a measured picture,
// the way up from each, and computed pictures swept over a measured one. Each pose's result is its own, so the number
// of threads changes no bit.
#include "batch.hpp"

#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <memory>
#include <vector>

#include "climb.hpp"
#include "crew.hpp"
#include "plan.hpp"
#include "sweep.hpp"

namespace nb = nanobind;
using namespace projector;
using Picture = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Poses = nb::ndarray<const double, nb::shape<-1, 4, 4>, nb::c_contig, nb::device::cpu>;
using Matrix = nb::ndarray<const double, nb::shape<4, 4>, nb::c_contig, nb::device::cpu>;
using Turns = nb::ndarray<const double, nb::shape<-1, 2>, nb::c_contig, nb::device::cpu>;

template <class T> static nb::object array(std::vector<T> values, std::vector<std::size_t> shape) {
    auto* kept = new std::vector<T>(std::move(values));
    nb::capsule owner(kept, [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
    return nb::cast(nb::ndarray<nb::numpy, T>(kept->data(), shape.size(), shape.data(), owner));
}

// numbers: rows, columns, pitch along rows and columns, SDD, SOD, principal point u, v; see place.hpp.
static Arm arm_of(const Numbers& numbers) {
    const double* n = numbers.data();
    if (numbers.shape(0) != 8 || n[0] < 3 || n[1] < 3) throw nb::value_error("a C-arm is eight numbers, 3 x 3 pixels at least");
    return {n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7]};
}

static bool fits(const Picture& picture, const Arm& arm) { return picture.shape(0) == arm.h && picture.shape(1) == arm.w; }

static Matter matter_of(const Block& i, const Block& j, const Block& k, const Matrix& index) {
    Matter out;
    const Block* all[3] = {&i, &j, &k};
    for (int a = 0; a < 3; ++a) {
        const Block& p = *all[a];
        out.planes[a] = {p.data(), static_cast<int>(p.shape(2)) - 2 * PAD, static_cast<int>(p.shape(1)) - 2 * PAD,
                         static_cast<int>(p.shape(0))};
        if (out.planes[a].nx < 1 || out.planes[a].ny < 1) throw nb::value_error("planes without their border of zeros");
    }
    std::copy(index.data(), index.data() + 16, out.index);
    return out;
}

static Pose pose_of(const double* m) {
    Pose p;
    for (int r = 0; r < 3; ++r) {
        for (int c = 0; c < 3; ++c) p.r[r][c] = m[4 * r + c];
        p.t[r] = m[4 * r + 3];
    }
    return p;
}

static nb::object pictures(Block i, Block j, Block k, Matrix index, Numbers numbers, Poses poses, int threads,
                           const std::string& path) {
    const Path& p = path_named(path);
    const Matter matter = matter_of(i, j, k, index);
    const Arm arm = arm_of(numbers);
    const auto h = static_cast<std::size_t>(arm.h), w = static_cast<std::size_t>(arm.w);
    const std::size_t n = poses.shape(0), pixels = h * w;
    std::vector<float> out(n * pixels);
    {
        nb::gil_scoped_release release;
        Crew::run(std::clamp(threads, 1, 64), {static_cast<int>(n)}, [&](int, int part, int) {
            int axis = 0;
            const View view = view_at(matter, arm, pose_of(poses.data() + 16 * part), axis);
            p.direct(matter.planes[axis], view, Out{&out[part * pixels], nullptr, 0, 0}, 0, static_cast<int>(h));
        });
    }
    return array(std::move(out), {n, h, w});
}

static nb::tuple climbed(Block i, Block j, Block k, Matrix index, Numbers numbers, Poses poses, Picture fixed, Picture weight,
                         bool gradient, int iterations, double tolerance_px, int threads, const std::string& path) {
    const Path& p = path_named(path);
    const Matter matter = matter_of(i, j, k, index);
    const Arm arm = arm_of(numbers);
    if (!fits(fixed, arm) || !fits(weight, arm)) throw nb::value_error("a picture of another shape");
    const int h = static_cast<int>(arm.h), w = static_cast<int>(arm.w);
    const std::size_t n = poses.shape(0);
    std::vector<double> out(16 * n), r(n);
    {
        nb::gil_scoped_release release;
        const int crew = std::clamp(threads, 1, 64);
        const Target target(fixed.data(), weight.data(), h, w, gradient);
        std::vector<std::unique_ptr<Bench>> benches(crew);
        for (auto& b : benches) b = std::make_unique<Bench>(target);
        Crew::run(crew, {static_cast<int>(n)}, [&](int, int part, int who) {
            Pose pose = pose_of(poses.data() + 16 * part);
            r[part] = climb(p, matter, arm, target, iterations, tolerance_px, pose, *benches[who]);
            write_pose(pose, &out[16 * part]);
        });
    }
    return nb::make_tuple(array(std::move(out), {n, 4, 4}), array(std::move(r), {n}));
}

static nb::tuple swept(Block computed, double pitch, Picture fixed, Picture weight, Numbers numbers, Turns turns,
                       int reach_u, int reach_v, int stride, int threads) {
    const Arm arm = arm_of(numbers);
    const Sweep sweep{static_cast<int>(computed.shape(1)), pitch, reach_u, reach_v, stride};
    if (stride < 1 || computed.shape(1) != computed.shape(2) || reach_u < 0 || reach_v < 0 || !fits(fixed, arm) || !fits(weight, arm))
        throw nb::value_error("pictures of shapes that do not belong together");
    const int h = static_cast<int>(arm.h), w = static_cast<int>(arm.w);
    const std::size_t n = computed.shape(0), m = turns.shape(0);
    std::vector<float> r(n * m);
    std::vector<std::int32_t> shift(2 * n * m);
    {
        nb::gil_scoped_release release;
        const int crew = std::clamp(threads, 1, 64);
        const Target target(fixed.data(), weight.data(), h, w, false);
        const int pitch_px = w + 2 * reach_u + LANES, rows = h + 2 * reach_v;  // a register may read beyond the row's end
        std::vector<std::vector<float>> images(crew, std::vector<float>(static_cast<std::size_t>(pitch_px) * rows, 0.f));
        Crew::run(crew, {static_cast<int>(n)}, [&](int, int part, int who) {
            const float* picture = computed.data() + static_cast<std::size_t>(part) * sweep.size * sweep.size;
            for (std::size_t a = 0; a < m; ++a) {
                turned(picture, sweep, arm, turns(a, 0), turns(a, 1), pitch_px, images[who].data());
                const Laid best = best_shift(images[who].data(), pitch_px, target, sweep);
                const std::size_t at = part * m + a;
                r[at] = best.r, shift[2 * at] = best.u, shift[2 * at + 1] = best.v;
            }
        });
    }
    return nb::make_tuple(array(std::move(r), {n, m}), array(std::move(shift), {n, m, 2}));
}

void projector::add_batch(nb::module_& m) {
    m.def("pictures", &pictures, nb::arg("i"), nb::arg("j"), nb::arg("k"), nb::arg("index"), nb::arg("numbers"),
          nb::arg("poses"), nb::arg("threads"), nb::arg("path"));
    m.def("climbed", &climbed, nb::arg("i"), nb::arg("j"), nb::arg("k"), nb::arg("index"), nb::arg("numbers"), nb::arg("poses"),
          nb::arg("fixed"), nb::arg("weight"), nb::arg("gradient"), nb::arg("iterations"), nb::arg("tolerance_px"),
          nb::arg("threads"), nb::arg("path"));
    m.def("swept", &swept, nb::arg("computed"), nb::arg("pitch"), nb::arg("fixed"), nb::arg("weight"), nb::arg("numbers"),
          nb::arg("turns"), nb::arg("reach_u"), nb::arg("reach_v"),
          nb::arg("stride"), nb::arg("threads"));
}
