// SPDX-License-Identifier: Apache-2.0
// The compiled half of models/xray/integrator.py: what it computes is said in volume.hpp and tubes.hpp.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <limits>

#include "tubes.hpp"
#include "volume.hpp"

namespace nb = nanobind;
using Field = nb::ndarray<const float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using Fields = nb::ndarray<const float, nb::ndim<4>, nb::c_contig, nb::device::cpu>;
using Numbers = nb::ndarray<const double, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Points = nb::ndarray<const double, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Labels = nb::ndarray<const std::int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

static nb::object made(std::vector<float>&& values, std::vector<std::size_t> shape) {
    auto* kept = new std::vector<float>(std::move(values));
    nb::capsule owner(kept, [](void* p) noexcept { delete static_cast<std::vector<float>*>(p); });
    return nb::cast(nb::ndarray<nb::numpy, float>(kept->data(), shape.size(), shape.data(), owner));
}

static integrator::Grid grid_of(const Field& volume) {
    if (volume.size() > static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max()))
        throw nb::value_error("a volume of more than 2^31 voxels");
    for (int c = 0; c < 3; ++c)
        if (volume.shape(c) < 2) throw nb::value_error("a volume needs 2 x 2 x 2 voxels at least");
    return {volume.data(), {static_cast<int>(volume.shape(2)), static_cast<int>(volume.shape(1)),
                            static_cast<int>(volume.shape(0))}};
}

static nb::object line_integrals(Field volume, Points beam, Numbers spacing, int rows, int columns, float soft_hu,
                                 float bone_hu, int threads) {
    if (beam.shape(0) != 4 || beam.shape(1) != 3 || spacing.shape(0) != 3)
        throw nb::value_error("the beam is source, first pixel, column step, row step; spacing is three numbers");
    const auto grid = grid_of(volume);
    integrator::Beam b;
    for (int c = 0; c < 3; ++c) {
        b.source[c] = beam(0, c), b.first[c] = beam(1, c), b.du[c] = beam(2, c), b.dv[c] = beam(3, c);
        b.spacing[c] = spacing(c);
    }
    b.rows = rows, b.columns = columns;
    const std::size_t size = static_cast<std::size_t>(rows) * columns;
    std::vector<float> out(2 * size);
    {
        nb::gil_scoped_release release;
        integrator::line_integrals(grid, b, {soft_hu, bone_hu}, threads, out.data(), out.data() + size);
    }
    return made(std::move(out), {2, static_cast<std::size_t>(rows), static_cast<std::size_t>(columns)});
}

static nb::object deform(Field volume, Fields field, float ratio, float amplitude, int threads) {
    const auto grid = grid_of(volume);
    if (field.shape(0) != 3) throw nb::value_error("the field has three components");
    const int coarse[3] = {static_cast<int>(field.shape(3)), static_cast<int>(field.shape(2)),
                           static_cast<int>(field.shape(1))};
    for (int c = 0; c < 3; ++c)
        if (coarse[c] < 2) throw nb::value_error("the field needs 2 x 2 x 2 nodes at least");
    std::vector<float> out(volume.size());
    {
        nb::gil_scoped_release release;
        integrator::deform(grid, field.data(), coarse, ratio, amplitude, threads, out.data());
    }
    return made(std::move(out), {volume.shape(0), volume.shape(1), volume.shape(2)});
}

static nb::object tubes(Points points, Numbers radius, Numbers concentration, Labels branch, Numbers detector,
                        int rows, int columns, int fine) {
    const std::size_t n = points.shape(0);
    if (points.shape(1) != 3 || radius.shape(0) != n || concentration.shape(0) != n || branch.shape(0) != n)
        throw nb::value_error("each point has a radius, a concentration and a branch");
    if (detector.shape(0) != 6) throw nb::value_error("the detector is sdd, sod, pitch u, pitch v, cu, cv");
    if (static_cast<double>(rows) * columns * fine * fine > std::numeric_limits<std::int32_t>::max())
        throw nb::value_error("too many sample places");
    const integrator::Detector e = {detector(0), detector(1), detector(2), detector(3), detector(4), detector(5), rows, columns};
    std::vector<float> out(static_cast<std::size_t>(rows) * columns);
    {
        nb::gil_scoped_release release;
        integrator::tubes(integrator::cylinders(points.data(), radius.data(), concentration.data(), branch.data(), n), e,
                          fine, out.data());
    }
    return made(std::move(out), {static_cast<std::size_t>(rows), static_cast<std::size_t>(columns)});
}

NB_MODULE(_integrator, m) {
    m.def("line_integrals", &line_integrals, nb::arg("volume"), nb::arg("beam"), nb::arg("spacing"), nb::arg("rows"),
          nb::arg("columns"), nb::arg("soft_hu"), nb::arg("bone_hu"), nb::arg("threads"));
    m.def("deform", &deform, nb::arg("volume"), nb::arg("field"), nb::arg("ratio"), nb::arg("amplitude"),
          nb::arg("threads"));
    m.def("tubes", &tubes, nb::arg("points"), nb::arg("radius"), nb::arg("concentration"), nb::arg("branch"),
          nb::arg("detector"), nb::arg("rows"), nb::arg("columns"), nb::arg("fine"));
}
