// SPDX-License-Identifier: Apache-2.0
// Where do the rays of a picture run in a volume's index? The axis along which they mostly run, and View's numbers.
//
// In Python this cost as much as the projection of a small picture.
#pragma once
#include <algorithm>
#include <array>
#include <cmath>

namespace projector {

// What a C-arm is: rows, columns, pitch along rows and columns (mm), SDD, SOD (mm), principal point (u, v).
struct Arm {
    double h, w, pv, pu, sdd, sod, cu, cv;
};

struct Placed {
    int axis;  // 0: i, 1: j, 2: k
    std::array<double, 27> numbers;
};

// The index axis along which all four corner rays run most steeply: the one whose flattest ray is the steepest.
inline int main_axis(const double (&corner)[4][3]) {
    int best = 0;
    double most = -2;
    for (int a = 0; a < 3; ++a) {
        double steep = 1e300, low = 1, high = -1;
        bool flat = false;
        for (const auto& d : corner) {
            const double size = std::abs(d[a]), other = std::max(std::abs(d[(a + 1) % 3]), std::abs(d[(a + 2) % 3]));
            steep = std::min(steep, size / std::max(other, 1e-30));
            const double sign = d[a] > 0 ? 1 : d[a] < 0 ? -1 : 0;
            low = std::min(low, sign), high = std::max(high, sign);
            flat = flat || size == 0;
        }
        if (low != high || flat) steep = -1;  // the rays turn: some run across it
        if (steep > most) most = steep, best = a;
    }
    return best;
}

// index_from_patient, carm_from_patient: 4 x 4, row by row; the latter is rigid.
inline Placed place(const double* index_from_patient, const double* carm_from_patient, const Arm& arm) {
    constexpr int orders[3][3] = {{1, 2, 0}, {0, 2, 1}, {0, 1, 2}};
    double m[3][4];  // index_from_carm = index_from_patient @ inverse(carm_from_patient)
    const double *p = carm_from_patient, *q = index_from_patient;
    double back[3];
    for (int i = 0; i < 3; ++i) back[i] = -(p[i] * p[3] + p[4 + i] * p[7] + p[8 + i] * p[11]);
    for (int r = 0; r < 3; ++r) {
        for (int c = 0; c < 3; ++c) m[r][c] = q[4 * r] * p[4 * c] + q[4 * r + 1] * p[4 * c + 1] + q[4 * r + 2] * p[4 * c + 2];
        m[r][3] = q[4 * r] * back[0] + q[4 * r + 1] * back[1] + q[4 * r + 2] * back[2] + q[4 * r + 3];
    }
    const double left = -arm.cu * arm.pu, right = (arm.w - 1 - arm.cu) * arm.pu, top = -arm.cv * arm.pv, bottom = (arm.h - 1 - arm.cv) * arm.pv;
    double corner[4][3];
    for (int c = 0; c < 4; ++c)
        for (int a = 0; a < 3; ++a)
            corner[c][a] = m[a][0] * (c % 2 ? right : left) + m[a][1] * (c / 2 ? bottom : top) - m[a][2] * arm.sdd;
    Placed out{main_axis(corner), {}};
    for (int i = 0; i < 3; ++i) {
        const double* row = m[orders[out.axis][i]];
        out.numbers[i] = row[2] * arm.sod + row[3];
        out.numbers[3 + i] = corner[0][orders[out.axis][i]];
        out.numbers[6 + i] = row[0] * arm.pu, out.numbers[9 + i] = row[1] * arm.pv;
        for (int c = 0; c < 3; ++c) out.numbers[12 + 3 * i + c] = row[c];
    }
    const double rest[6] = {left, arm.pu, top, arm.pv, arm.sdd, arm.sod};
    std::copy(rest, rest + 6, out.numbers.begin() + 21);
    return out;
}

}  // namespace projector
