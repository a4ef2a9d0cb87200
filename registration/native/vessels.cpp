// SPDX-License-Identifier: Apache-2.0
// The compiled halves of registration/vessel_detect.py and registration/curve_fit.py.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <memory>

#include "curves.hpp"
#include "skeleton.hpp"

namespace nb = nanobind;
using Image = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Bits = nb::ndarray<const std::uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Table = nb::ndarray<const double, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

template <class T> static nb::object array(std::vector<T> values, std::vector<std::size_t> shape) {
    auto* kept = new std::vector<T>(std::move(values));
    nb::capsule owner(kept, [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
    return nb::cast(nb::ndarray<nb::numpy, T>(kept->data(), shape.size(), shape.data(), owner));
}

// (indices of the skeleton's pixels, their tangents (n, 2), field); widths in pixels
static nb::tuple detect(Image picture, Image weight, double border, double wide, int opening, double along, double mm,
                        double shortest_mm, double noise_sigmas, double faintest_share) {
    const vessels::Size n{static_cast<int>(picture.shape(0)), static_cast<int>(picture.shape(1))};
    if (weight.shape(0) != picture.shape(0) || weight.shape(1) != picture.shape(1)) throw nb::value_error("pictures of different shapes");
    vessels::Mask field;
    std::vector<int> at;
    std::vector<double> tangents;
    {
        nb::gil_scoped_release release;
        field = vessels::field(weight.data(), n, border);
        const auto contrast = vessels::contrast(vessels::filled(picture.data(), weight.data(), n), n, wide, opening);
        const auto mask = vessels::segmented(contrast, field, n, {mm, shortest_mm, noise_sigmas, faintest_share});
        at = vessels::thinned(mask, n);
        tangents = vessels::tangents(mask, n, at, along);
    }
    const std::size_t count = at.size();
    return nb::make_tuple(array(std::move(at), {count}), array(std::move(tangents), {count, 2}),
                          array(std::move(field), {picture.shape(0), picture.shape(1)}));
}

static nb::object thinned(Bits mask) {
    const vessels::Size n{static_cast<int>(mask.shape(0)), static_cast<int>(mask.shape(1))};
    vessels::Mask out(n.pixels(), 0);
    for (int k : vessels::thinned(vessels::Mask(mask.data(), mask.data() + n.pixels()), n)) out[k] = 1;
    return array(std::move(out), {mask.shape(0), mask.shape(1)});
}

struct Seen {
    vessels::Seen core;
    double angle_mm;

    vessels::Seen::Line line(const Table& points, const Table& tangents, const Table& pose) const {
        if (points.shape(1) != 3 || tangents.shape(1) != 3 || tangents.shape(0) != points.shape(0) || pose.shape(0) != 4 || pose.shape(1) != 4)
            throw nb::value_error("points (n, 3), tangents (n, 3) and a pose (4, 4)");
        return core.projected(points.data(), tangents.data(), static_cast<int>(points.shape(0)), pose.data(), angle_mm);
    }

    // (r (k,), j (k, 9), w (k,), cost), or None where too little matches
    nb::object residuals(Table points, Table tangents, Table pose, double scale, double along, double empty_weight) const {
        std::vector<double> r, j, w;
        double cost;
        {
            const auto at = line(points, tangents, pose);
            nb::gil_scoped_release release;
            cost = core.residuals(at, scale, {angle_mm, along, empty_weight}, r, j, w);
        }
        if (cost < 0) return nb::none();
        const std::size_t n = r.size();
        return nb::make_tuple(array(std::move(r), {n}), array(std::move(j), {n, 9}), array(std::move(w), {n}), cost);
    }

    nb::tuple distances(Table points, Table tangents, Table pose) const {
        std::vector<double> to_curve, to_skeleton;
        core.distances(line(points, tangents, pose), static_cast<int>(points.shape(0)), to_curve, to_skeleton);
        const std::size_t n = to_curve.size(), m = to_skeleton.size();
        return nb::make_tuple(array(std::move(to_curve), {n}), array(std::move(to_skeleton), {m}));
    }
};

NB_MODULE(_vessels, m) {
    m.def("detect", &detect, nb::arg("picture"), nb::arg("weight"), nb::arg("border"), nb::arg("wide"), nb::arg("opening"),
          nb::arg("along"), nb::arg("mm"), nb::arg("shortest_mm"), nb::arg("noise_sigmas"), nb::arg("faintest_share"));
    m.def("thinned", &thinned, nb::arg("mask"));
    nb::class_<Seen>(m, "Seen")
        .def("__init__", [](Seen* self, Table points, Table tangents, Bits field, double sod, double mm_u, double mm_v, double cu,
                            double cv, double angle_mm) {
            if (points.shape(1) != 2 || tangents.shape(1) != 2 || tangents.shape(0) != points.shape(0))
                throw nb::value_error("points (n, 2) and tangents (n, 2)");
            new (self) Seen{vessels::Seen(points.data(), tangents.data(), static_cast<int>(points.shape(0)), field.data(),
                                          static_cast<int>(field.shape(0)), static_cast<int>(field.shape(1)),
                                          {sod, mm_u, mm_v, cu, cv}, angle_mm), angle_mm};
        }, nb::arg("points"), nb::arg("tangents"), nb::arg("field"), nb::arg("sod"), nb::arg("mm_u"), nb::arg("mm_v"), nb::arg("cu"),
             nb::arg("cv"), nb::arg("angle_mm"))
        .def("residuals", &Seen::residuals, nb::arg("points"), nb::arg("tangents"), nb::arg("pose"), nb::arg("scale"),
             nb::arg("along"), nb::arg("empty_weight"))
        .def("distances", &Seen::distances, nb::arg("points"), nb::arg("tangents"), nb::arg("pose"));
}
