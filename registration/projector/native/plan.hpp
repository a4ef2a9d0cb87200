// SPDX-License-Identifier: Apache-2.0
// Which path, which rays? From the numbers that Python hands over to a View.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <string>
#include <vector>

#include "path.hpp"

namespace projector {

namespace nb = nanobind;
using Block = nb::ndarray<const float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using Numbers = nb::ndarray<const double, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

// The paths that this processor can run, the best last.
inline std::vector<const Path*> paths() {
    std::vector<const Path*> out{&portable};
#ifdef FLUORONAV_X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        out.push_back(&avx2);
        if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vbmi") &&
            __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("gfni"))
            out.push_back(&avx512);
    }
#endif
    return out;
}

inline const Path& path_named(const std::string& name) {
    const auto all = paths();
    for (const Path* p : all)
        if (name == p->name) return *p;
    throw nb::value_error("this processor has no such path");
}

// numbers: source (3), base (3), du (3), dv (3), m (9), ax, pu, ay, pv, sdd, sod; see View.
inline View view_of(int h, int w, const double* n) {
    View v;
    v.h = h, v.w = w;
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

inline View view_of(int h, int w, const Numbers& numbers) {
    if (numbers.shape(0) != 27 || h < 1 || w < 1) throw nb::value_error("a view is a shape and 27 numbers");
    return view_of(h, w, numbers.data());
}

// Rows that one thread works on before it takes others: the more, the less is read twice; of a small picture so few that
// every thread gets some.
inline int band_of(int h) { return h < 256 ? 32 : 64; }
constexpr int MOST = 64;  // threads
inline int parts(int rows, int size) { return (rows + size - 1) / size; }

}  // namespace projector
