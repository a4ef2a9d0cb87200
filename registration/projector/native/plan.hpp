// SPDX-License-Identifier: Apache-2.0
// Which path, which rays? From the numbers that Python hands over to a View, and to the grid of slopes for it.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <cmath>
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
            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vbmi"))
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

constexpr int BAND = 32;  // rows that one thread works on before it takes others: their sums stay in its cache
constexpr int MOST = 64;  // threads
inline int parts(int rows, int size) { return (rows + size - 1) / size; }

// The largest steps that the windows of all paths hold, in voxels between neighbouring rays of a plane.
constexpr double WIDEST = 1.9;

// The grid of slopes for a view; false where the sheared renderer does not serve: a volume that reaches
// behind the source, pixels much wider than voxels, nothing in sight.
inline bool plan(const View& view, const Numbers& numbers, const Slabs& v, double finer, Grid& grid) {
    const double* q = numbers.data();  // in double: differences of large slopes follow
    const double ha = -q[2], hb = v.nz - 1 - q[2];
    double low[2] = {1e30, 1e30}, high[2] = {-1e30, -1e30}, step[2] = {1e30, 1e30};
    for (int c = 0; c < 5; ++c) {
        const double u = c == 4 ? (view.w - 1) / 2.0 : c % 2 * (view.w - 1.0), w = c == 4 ? (view.h - 1) / 2.0 : c / 2 * (view.h - 1.0);
        double d[3];
        for (int a = 0; a < 3; ++a) d[a] = q[3 + a] + u * q[6 + a] + w * q[9 + a];
        for (const double h : {ha, hb})
            if (!(h / d[2] > 0 && std::abs(h) > 2)) return false;
        for (int a = 0; a < 2; ++a) {
            const double m = d[a] / d[2];
            low[a] = std::min(low[a], m), high[a] = std::max(high[a], m);
            step[a] = std::min(step[a], std::hypot(q[6 + a] - m * q[8], q[9 + a] - m * q[11]) / std::abs(d[2]));
        }
    }
    const double farthest = std::max(std::abs(ha), std::abs(hb)), way = ha > 0 ? 1 : -1;
    int size[2];
    double start[2];
    for (int a = 0; a < 2; ++a) {
        double first = 1e30, last = -1e30;  // the volume's shadow
        for (const double h : {ha, hb})
            for (const double x : {-1.0 - q[a], (a ? v.ny : v.nx) - q[a]}) first = std::min(first, x / h), last = std::max(last, x / h);
        low[a] = std::max(low[a], first), high[a] = std::min(high[a], last);
        const double wanted = step[a] / finer;
        step[a] = std::min(wanted, WIDEST / farthest);
        if (!(high[a] > low[a]) || wanted > 2 * step[a] || (high[a] - low[a]) / step[a] > 4000) return false;
        size[a] = static_cast<int>(std::ceil((high[a] - low[a]) / step[a])) + 6;
        start[a] = (way > 0 ? low[a] : high[a]) - 2 * way * step[a];
    }
    grid = {size[0], size[1], (size[0] + 31) / 32 * 32, start[0], start[1], way * step[0], way * step[1]};
    return true;
}

}  // namespace projector
