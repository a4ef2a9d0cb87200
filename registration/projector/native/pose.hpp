// SPDX-License-Identifier: Apache-2.0
// Small algebra for many poses at once: rigid motions, and the View of a pose.
#pragma once
#include <cmath>

#include "path.hpp"
#include "place.hpp"
#include "plan.hpp"

namespace projector {

// Row-major 3 x 4 of a rigid motion: rotation and shift (mm).
struct Pose {
    double r[3][3], t[3];
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

// A volume laid out for each of the three axes along which rays may mostly run; index_from_patient 4 x 4, row by row.
struct Matter {
    Planes planes[3];
    double index[16];
};

inline void write_pose(const Pose& p, double* m) {
    for (int r = 0; r < 3; ++r) {
        for (int c = 0; c < 3; ++c) m[4 * r + c] = p.r[r][c];
        m[4 * r + 3] = p.t[r];
        m[12 + r] = 0;
    }
    m[15] = 1;
}

inline View view_at(const Matter& matter, const Arm& arm, const Pose& pose, int& axis) {
    double m[16];
    write_pose(pose, m);
    const Placed placed = place(matter.index, m, arm);
    axis = placed.axis;
    return view_of(static_cast<int>(arm.h), static_cast<int>(arm.w), placed.numbers.data());
}

inline double mm_per_px(const Arm& arm) { return std::sqrt(arm.pu * arm.pv) * arm.sod / arm.sdd; }

}  // namespace projector
