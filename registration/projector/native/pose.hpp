// SPDX-License-Identifier: Apache-2.0
// Small algebra for many poses at once: rigid motions, a C-arm, and the View of a pose (renderer.py's _view).
#pragma once
#include <algorithm>
#include <array>
#include <cmath>

#include "path.hpp"

namespace projector {

// Row-major 3 x 4 of a rigid motion: rotation and shift (mm).
struct Pose {
    double r[3][3], t[3];
};

struct Carm {
    int h, w;
    double pitch_u, pitch_v, cu, cv, sdd, sod;
    double mm_per_px() const { return std::sqrt(pitch_u * pitch_v) * sod / sdd; }
};

// exp(xi) @ pose; xi = (rotation, shift). Source: Murray, Li, Sastry 1994, eq. 2.36.
inline Pose moved(const Pose& p, const double* xi) {
    const double angle = std::sqrt(xi[0] * xi[0] + xi[1] * xi[1] + xi[2] * xi[2]), q = angle * angle;
    const bool tiny = angle < 1e-5;
    const double a = tiny ? 1 - q / 6 : std::sin(angle) / angle, b = tiny ? 0.5 - q / 24 : (1 - std::cos(angle)) / q;
    const double c = tiny ? 1.0 / 6 - q / 120 : (angle - std::sin(angle)) / (q * angle);
    const double k[3][3] = {{0, -xi[2], xi[1]}, {xi[2], 0, -xi[0]}, {-xi[1], xi[0], 0}};
    double turn[3][3], slide[3][3];
    for (int i = 0; i < 3; ++i)
        for (int j = 0; j < 3; ++j) {
            double kk = 0;
            for (int n = 0; n < 3; ++n) kk += k[i][n] * k[n][j];
            turn[i][j] = (i == j) + a * k[i][j] + b * kk;
            slide[i][j] = (i == j) + b * k[i][j] + c * kk;
        }
    Pose out;
    for (int i = 0; i < 3; ++i) {
        for (int j = 0; j < 3; ++j) {
            out.r[i][j] = 0;
            for (int n = 0; n < 3; ++n) out.r[i][j] += turn[i][n] * p.r[n][j];
        }
        out.t[i] = 0;
        for (int n = 0; n < 3; ++n) out.t[i] += turn[i][n] * p.t[n] + slide[i][n] * xi[3 + n];
    }
    return out;
}

// A volume laid out for each of the three axes along which rays may mostly run; index_from_patient row-major 3 x 4.
struct Matter {
    Planes planes[3];
    double index[3][3], offset[3];
};

constexpr int ORDERS[3][3] = {{1, 2, 0}, {0, 2, 1}, {0, 1, 2}};  // as in renderer.py

// The axis along which all four corner rays run most steeply; reference.py's main_axis.
inline int main_axis(const double (*corner)[3]) {
    double best = -2;
    int chosen = 0;
    for (int a = 0; a < 3; ++a) {
        double steep = 1e30;
        bool up = true, down = true;
        for (int c = 0; c < 4; ++c) {
            const double others = std::max(std::abs(corner[c][(a + 1) % 3]), std::abs(corner[c][(a + 2) % 3]));
            steep = std::min(steep, std::abs(corner[c][a]) / std::max(others, 1e-30));
            up = up && corner[c][a] > 0, down = down && corner[c][a] < 0;
        }
        const double value = up || down ? steep : -1;
        if (value > best) best = value, chosen = a;
    }
    return chosen;
}

inline View view_at(const Matter& matter, const Carm& carm, const Pose& pose, int& axis) {
    double m[3][3], origin[3];  // index_from_carm
    for (int i = 0; i < 3; ++i) {
        origin[i] = matter.offset[i];
        for (int j = 0; j < 3; ++j) {
            m[i][j] = 0;
            for (int n = 0; n < 3; ++n) m[i][j] += matter.index[i][n] * pose.r[j][n];
        }
        for (int j = 0; j < 3; ++j) origin[i] -= m[i][j] * pose.t[j];
    }
    const double left = -carm.cu * carm.pitch_u, top = -carm.cv * carm.pitch_v;
    double corner[4][3];
    for (int c = 0; c < 4; ++c) {
        const double way[3] = {left + c % 2 * (carm.w - 1) * carm.pitch_u, top + c / 2 * (carm.h - 1) * carm.pitch_v, -carm.sdd};
        for (int i = 0; i < 3; ++i) corner[c][i] = m[i][0] * way[0] + m[i][1] * way[1] + m[i][2] * way[2];
    }
    axis = main_axis(corner);
    View v;
    v.h = carm.h, v.w = carm.w;
    for (int a = 0; a < 3; ++a) {
        const int i = ORDERS[axis][a];
        v.source[a] = static_cast<float>(origin[i] + m[i][2] * carm.sod);
        v.base[a] = static_cast<float>(corner[0][i]);
        v.du[a] = static_cast<float>(m[i][0] * carm.pitch_u), v.dv[a] = static_cast<float>(m[i][1] * carm.pitch_v);
        for (int j = 0; j < 3; ++j) v.m[3 * a + j] = static_cast<float>(m[i][j]);
    }
    v.ax = static_cast<float>(left), v.pu = static_cast<float>(carm.pitch_u);
    v.ay = static_cast<float>(top), v.pv = static_cast<float>(carm.pitch_v);
    v.sdd = static_cast<float>(carm.sdd), v.sod = static_cast<float>(carm.sod);
    return v;
}

}  // namespace projector
