// SPDX-License-Identifier: Apache-2.0
// The compiled half of registration/projector: picks the processor's path, shares rows among threads.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "path.hpp"

namespace nb = nanobind;
using namespace projector;
using Block = nb::ndarray<const float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using Numbers = nb::ndarray<const double, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

// The paths that this processor can run, the best last.
static std::vector<const Path*> paths() {
    std::vector<const Path*> out{&portable};
#ifdef FLUORONAV_X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        out.push_back(&avx2);
        if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vbmi"))
            out.push_back(&avx512);
    }
#endif
    return out;
}

static const Path& path_named(const std::string& name) {
    const auto all = paths();
    for (const Path* p : all)
        if (name == p->name) return *p;
    throw nb::value_error("this processor has no such path");
}

// Rows are dealt out in equal bands. A pixel is computed by one thread alone, so their number changes no bit.
template <class Work> static void shared(int rows, int threads, Work work) {
    const int n = std::max(1, std::min(threads, rows));
    std::vector<std::thread> others;
    for (int t = 1; t < n; ++t) others.emplace_back(work, rows * t / n, rows * (t + 1) / n);
    work(0, rows / n);
    for (std::thread& t : others) t.join();
}

static nb::object array(float* data, std::initializer_list<std::size_t> shape) {
    nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<float*>(p); });
    return nb::cast(nb::ndarray<nb::numpy, float>(data, shape.size(), shape.begin(), owner));
}

// numbers: source (3), base (3), du (3), dv (3), m (9), ax, pu, ay, pv, sdd, sod; see View.
static View view_of(int h, int w, const Numbers& numbers) {
    if (numbers.shape(0) != 27 || h < 1 || w < 1) throw nb::value_error("a view is a shape and 27 numbers");
    View v;
    v.h = h, v.w = w;
    const double* n = numbers.data();
    for (int i = 0; i < 3; ++i) {
        v.source[i] = static_cast<float>(n[i]);
        v.base[i] = static_cast<float>(n[3 + i]);
        v.du[i] = static_cast<float>(n[6 + i]);
        v.dv[i] = static_cast<float>(n[9 + i]);
    }
    for (int i = 0; i < 9; ++i) v.m[i] = static_cast<float>(n[12 + i]);
    v.ax = static_cast<float>(n[21]), v.pu = static_cast<float>(n[22]), v.ay = static_cast<float>(n[23]);
    v.pv = static_cast<float>(n[24]), v.sdd = static_cast<float>(n[25]), v.sod = static_cast<float>(n[26]);
    return v;
}

static nb::object direct(Block planes, int h, int w, Numbers numbers, bool jacobian, int threads, const std::string& path) {
    const Path& p = path_named(path);
    const View view = view_of(h, w, numbers);
    const Planes volume{planes.data(), static_cast<int>(planes.shape(2)) - 2 * PAD,
                        static_cast<int>(planes.shape(1)) - 2 * PAD, static_cast<int>(planes.shape(0))};
    if (volume.nx < 1 || volume.ny < 1) throw nb::value_error("planes without their border of zeros");
    const std::size_t rows = static_cast<std::size_t>(h), cols = static_cast<std::size_t>(w);
    Out out{new float[rows * cols], jacobian ? new float[6 * rows * cols] : nullptr};
    {
        nb::gil_scoped_release release;
        shared(h, threads, [&](int a, int b) { p.direct(volume, view, out, a, b); });
    }
    nb::object image = array(out.image, {rows, cols});
    if (!jacobian) return image;
    return nb::make_tuple(image, array(out.jacobian, {6, rows, cols}));
}

NB_MODULE(_projector, m) {
    m.attr("PAD") = PAD;
    m.def("paths", [] {
        std::vector<std::string> names;
        for (const Path* p : paths()) names.emplace_back(p->name);
        return names;
    });
    m.def("direct", &direct, nb::arg("planes"), nb::arg("h"), nb::arg("w"), nb::arg("numbers"), nb::arg("jacobian"),
          nb::arg("threads"), nb::arg("path"));
}
