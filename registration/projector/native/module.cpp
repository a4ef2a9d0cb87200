// SPDX-License-Identifier: Apache-2.0
// The compiled half of registration/projector: picks the processor's path, shares rows among the crew.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "arrays.hpp"
#include "batch.hpp"
#include "crew.hpp"
#include "path.hpp"
#include "place.hpp"
#include "plan.hpp"

using namespace projector;

static nb::object direct(Block planes, int h, int w, Numbers numbers, bool jacobian, int threads, const std::string& path) {
    const Path& p = path_named(path);
    const View view = view_of(h, w, numbers);
    const Planes volume{planes.data(), static_cast<int>(planes.shape(2)) - 2 * PAD,
                        static_cast<int>(planes.shape(1)) - 2 * PAD, static_cast<int>(planes.shape(0))};
    if (volume.nx < 1 || volume.ny < 1) throw nb::value_error("planes without their border of zeros");
    Result result(h, w, jacobian);
    {
        nb::gil_scoped_release release;
        Crew::run(std::clamp(threads, 1, MOST), {parts(h, 4)}, [&](int, int part, int) {
            p.direct(volume, view, result.out(), 4 * part, std::min(h, 4 * part + 4));
        });
    }
    return result.object();
}

static nb::object sheared(nb::ndarray<const std::int16_t, nb::ndim<4>, nb::c_contig, nb::device::cpu> slabs,
                          nb::ndarray<const std::int32_t, nb::ndim<2>, nb::c_contig, nb::device::cpu> boxes, int nz, int nx,
                          float unit, double finer, int h, int w, Numbers numbers, bool jacobian, int threads,
                          const std::string& path) {
    const Path& p = path_named(path);
    const View view = view_of(h, w, numbers);
    const Slabs volume{slabs.data(), boxes.data(), nx, static_cast<int>(slabs.shape(1)), nz,
                       static_cast<int>(slabs.shape(3)), unit};
    if (slabs.shape(2) != GROUP || boxes.shape(1) != 4 || boxes.shape(0) != slabs.shape(0)) throw nb::value_error("no slabs");
    Grid grid;
    if (!plan(view, numbers, volume, finer, grid)) return nb::none();
    Result result(h, w, jacobian);
    {
        nb::gil_scoped_release release;
        const std::size_t cells = static_cast<std::size_t>(grid.h) * grid.pitch, own = scratch_bytes(grid) / sizeof(float) + 16;
        const int n = static_cast<double>(cells) * nz < 1e6 ? 1 : std::clamp(threads, 1, MOST);  // 0.1 ms: not worth it
        Buffer sums((jacobian ? 5 : 1) * cells), five(jacobian ? 8 * cells : 1), scratch(n * (own / 16 * 16));
        const Sheared s{volume, view, grid, sums.p, five.p};
        Crew::run(n, {parts(grid.h, BAND), parts(h, BAND)}, [&](int stage, int part, int who) {
            const int first = part * BAND;
            if (stage == 0) p.shear(s, jacobian, first, std::min(grid.h, first + BAND), scratch.p + who * (own / 16 * 16));
            else p.warp(s, result.out(), first, std::min(h, first + BAND));
        });
    }
    return result.object();
}

// A volume in any order of axes [z][y][x] to 12-bit words: slabs, boxes, unit.
static nb::tuple slabs_of(nb::ndarray<const float, nb::ndim<3>, nb::device::cpu> volume) {
    const auto nz = static_cast<std::ptrdiff_t>(volume.shape(0)), ny = static_cast<std::ptrdiff_t>(volume.shape(1)),
               nx = static_cast<std::ptrdiff_t>(volume.shape(2)), sz = volume.stride(0), sy = volume.stride(1), sx = volume.stride(2);
    const std::size_t groups = (nz + GROUP - 1) / GROUP, pitch = std::max<std::size_t>(64, (nx + EDGE + 2 + 31) / 32 * 32);
    auto* data = new std::vector<std::int16_t>(groups * ny * GROUP * pitch, 0);
    auto* boxes = new std::vector<std::int32_t>(groups * 4);
    float unit = 0;
    {
        nb::gil_scoped_release release;
        float low = 0, high = 0;
        for (std::ptrdiff_t k = 0; k < nz; ++k)
            for (std::ptrdiff_t j = 0; j < ny; ++j)
                for (std::ptrdiff_t i = 0; i < nx; ++i) {
                    const float f = volume.data()[k * sz + j * sy + i * sx];
                    low = std::min(low, f), high = std::max(high, f);
                }
        unit = high > low ? (high - low) / LARGEST : 1.0f;
        for (std::size_t g = 0; g < groups; ++g) {
            std::int32_t* box = boxes->data() + 4 * g;
            box[0] = box[2] = 1 << 30, box[1] = box[3] = -1;
            for (std::ptrdiff_t k = g * GROUP; k < std::min<std::ptrdiff_t>(nz, (g + 1) * GROUP); ++k)
                for (std::ptrdiff_t j = 0; j < ny; ++j)
                    for (std::ptrdiff_t i = 0; i < nx; ++i) {
                        const auto word = static_cast<std::int16_t>(std::lround(volume.data()[k * sz + j * sy + i * sx] / unit));
                        if (!word) continue;
                        (*data)[((g * ny + j) * GROUP + k % GROUP) * pitch + EDGE + i] = word;
                        const auto x = static_cast<std::int32_t>(i), y = static_cast<std::int32_t>(j);
                        box[0] = std::min(box[0], x), box[1] = std::max(box[1], x);
                        box[2] = std::min(box[2], y), box[3] = std::max(box[3], y);
                    }
        }
    }
    nb::capsule own(data, [](void* p) noexcept { delete static_cast<std::vector<std::int16_t>*>(p); });
    nb::capsule own_boxes(boxes, [](void* p) noexcept { delete static_cast<std::vector<std::int32_t>*>(p); });
    const std::size_t shape[4] = {groups, static_cast<std::size_t>(ny), GROUP, pitch}, box_shape[2] = {groups, 4};
    return nb::make_tuple(nb::ndarray<nb::numpy, std::int16_t>(data->data(), 4, shape, own),
                          nb::ndarray<nb::numpy, std::int32_t>(boxes->data(), 2, box_shape, own_boxes), unit);
}

using Matrix = nb::ndarray<const double, nb::shape<4, 4>, nb::c_contig, nb::device::cpu>;

// (axis, 27 numbers): see place.hpp.
static nb::tuple placed(Matrix index_from_patient, Matrix carm_from_patient, int h, int w, double pv, double pu, double sdd,
                        double sod, double cu, double cv) {
    const Placed p = place(index_from_patient.data(), carm_from_patient.data(),
                           {static_cast<double>(h), static_cast<double>(w), pv, pu, sdd, sod, cu, cv});
    auto* kept = new std::array<double, 27>(p.numbers);
    nb::capsule own(kept, [](void* q) noexcept { delete static_cast<std::array<double, 27>*>(q); });
    const std::size_t shape[1] = {27};
    return nb::make_tuple(p.axis, nb::ndarray<nb::numpy, double>(kept->data(), 1, shape, own));
}

NB_MODULE(_projector, m) {
    add_batch(m);
    m.def("placed", &placed, nb::arg("index_from_patient"), nb::arg("carm_from_patient"), nb::arg("h"), nb::arg("w"),
          nb::arg("pv"), nb::arg("pu"), nb::arg("sdd"), nb::arg("sod"), nb::arg("cu"), nb::arg("cv"));
    m.attr("PAD") = PAD;
    m.def("paths", [] {
        std::vector<std::string> names;
        for (const Path* p : paths()) names.emplace_back(p->name);
        return names;
    });
    m.def("direct", &direct, nb::arg("planes"), nb::arg("h"), nb::arg("w"), nb::arg("numbers"), nb::arg("jacobian"),
          nb::arg("threads"), nb::arg("path"));
    m.def("slabs", &slabs_of, nb::arg("volume"));
    m.def("sheared", &sheared, nb::arg("slabs"), nb::arg("boxes"), nb::arg("nz"), nb::arg("nx"), nb::arg("unit"),
          nb::arg("finer"), nb::arg("h"), nb::arg("w"), nb::arg("numbers"), nb::arg("jacobian"), nb::arg("threads"),
          nb::arg("path"));
}
