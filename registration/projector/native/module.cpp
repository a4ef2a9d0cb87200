// SPDX-License-Identifier: Apache-2.0
// The compiled half of registration/projector: picks the processor's path, shares rows among the crew.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <vector>

#include "arrays.hpp"
#include "../../native/descent.hpp"
#include "batch.hpp"
#include "bricks.hpp"
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

// None where bricks do not serve: what is left is the direct renderer.
static nb::object patches(Bytes bricks, const std::array<int, 3>& size, float unit, int h, int w, Numbers numbers, bool jacobian,
                          int threads, const std::string& path) {
    const Path& p = path_named(path);
    const View view = view_of(h, w, numbers);
    Bricks volume;
    if (!bricks_at(bricks, size[0], size[1], size[2], unit, p.bricks, volume) || !served(view, numbers.data(), volume)) return nb::none();
    Result result(h, w, jacobian);
    {
        nb::gil_scoped_release release;
        const int band = band_of(h);
        const std::size_t own = patch_scratch(w, band);
        const int n = static_cast<double>(h) * w * volume.nz < 1e6 ? 1 : std::clamp(threads, 1, MOST);  // 0.1 ms: not worth it
        Buffer scratch(static_cast<std::size_t>(n) * own);
        Crew::run(n, {parts(h, band)}, [&](int, int part, int who) {
            p.patches(volume, view, result.out(), part * band, std::min(h, part * band + band), scratch.p + static_cast<std::size_t>(who) * own);
        });
    }
    return result.object();
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
    descent::add(m);
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
    m.def("bricks", [](nb::ndarray<const float, nb::ndim<3>, nb::device::cpu> volume, const std::string& path) {
        return bricks_of(volume, path_named(path).bricks);
    }, nb::arg("volume"), nb::arg("path"));
    m.def("patches", &patches, nb::arg("bricks"), nb::arg("size"), nb::arg("unit"), nb::arg("h"), nb::arg("w"), nb::arg("numbers"),
          nb::arg("jacobian"), nb::arg("threads"), nb::arg("path"));
}
