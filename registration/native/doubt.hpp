// SPDX-License-Identifier: Apache-2.0
// How sure is a pose, and how far off may a target be? The formulae of confidence.py, where they are said.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <utility>
#include <vector>

namespace doubt {

// How a grid of cells lies over a picture of rows x cols pixels, and how many cells away others still count.
struct Cells {
    int down, across, reach;
    Cells(std::size_t cells, double rows, double cols, double reach_share) {
        const int n = static_cast<int>(cells);
        across = std::max(1, static_cast<int>(std::nearbyint(std::sqrt(n * cols / rows))));
        while (n % across) ++across;  // the grid's own width, whatever the rounding
        down = n / across;
        reach = std::max(1, static_cast<int>(std::nearbyint(reach_share * across)));
    }
};

// Sum of g g' over pairs of cells, near ones in full and ever less up to `reach` apart, g around their mean: out (n x n).
// scores: the first n of `stride` numbers a cell.
inline void scatter(const double* scores, int n, int stride, const Cells& c, double* out) {
    const std::size_t all = static_cast<std::size_t>(c.down) * c.across;
    std::vector<double> grid(all * n), near(n), mean(n, 0.0);
    for (std::size_t s = 0; s < all; ++s)
        for (int i = 0; i < n; ++i) mean[i] += scores[s * stride + i] / static_cast<double>(all);
    for (std::size_t s = 0; s < all; ++s)
        for (int i = 0; i < n; ++i) grid[s * n + i] = scores[s * stride + i] - mean[i];
    std::fill(out, out + static_cast<std::size_t>(n) * n, 0.0);
    const int far = c.reach - 1;
    for (int y = 0; y < c.down; ++y)
        for (int x = 0; x < c.across; ++x) {
            std::fill(near.begin(), near.end(), 0.0);
            for (int v = std::max(0, y - far); v <= std::min(c.down - 1, y + far); ++v)
                for (int u = std::max(0, x - far); u <= std::min(c.across - 1, x + far); ++u) {
                    const double share = (1 - std::abs(v - y) / static_cast<double>(c.reach)) * (1 - std::abs(u - x) / static_cast<double>(c.reach));
                    const double* g = &grid[(static_cast<std::size_t>(v) * c.across + u) * n];
                    for (int i = 0; i < n; ++i) near[i] += share * g[i];
                }
            const double* g = &grid[(static_cast<std::size_t>(y) * c.across + x) * n];
            for (int i = 0; i < n; ++i)
                for (int j = 0; j < n; ++j) out[i * n + j] += g[i] * near[j];
        }
}

// The inverse of a symmetric positive 6 x 6 by Cholesky; false where it is not positive.
inline bool inverted(const double (&a)[6][6], double (&out)[6][6]) {
    double l[6][6] = {};
    for (int i = 0; i < 6; ++i)
        for (int j = 0; j <= i; ++j) {
            double s = a[i][j];
            for (int k = 0; k < j; ++k) s -= l[i][k] * l[j][k];
            if (i == j && !(s > 0)) return false;
            l[i][j] = i == j ? std::sqrt(s) : s / l[j][j];
        }
    for (int c = 0; c < 6; ++c) {
        double x[6];
        for (int i = 0; i < 6; ++i) {
            x[i] = i == c;
            for (int k = 0; k < i; ++k) x[i] -= l[i][k] * x[k];
            x[i] /= l[i][i];
        }
        for (int i = 5; i >= 0; --i) {
            for (int k = i + 1; k < 6; ++k) x[i] -= l[k][i] * x[k];
            x[i] /= l[i][i];
        }
        for (int i = 0; i < 6; ++i) out[i][c] = x[i];
    }
    return true;
}

struct Spread {
    double pose[6][6], slip[6][3];
};

// From normal equations of nine numbers (hessian 9 x 9) and the gradient's summands (nine a cell). misfit: factor on
// standard deviations. False where the picture does not see the pose at all.
inline bool spread(const double* hessian, const double* scores, const Cells& cells, double misfit, Spread& out) {
    constexpr double unit[6] = {1e-2, 1e-2, 1e-2, 1, 1, 1}, little = 1e-10;  // rad against mm: conditioning only
    double h[6][6], inverse[6][6], trace = 0;
    for (int i = 0; i < 6; ++i) {
        for (int j = 0; j < 6; ++j) h[i][j] = 0.5 * (hessian[9 * i + j] + hessian[9 * j + i]) * unit[i] * unit[j];
        trace += h[i][i];
    }
    if (!(trace > 0) || !std::isfinite(trace)) return false;
    for (int i = 0; i < 6; ++i) h[i][i] += little * trace;
    if (!inverted(h, inverse)) return false;
    double g[36], left[6][6];
    scatter(scores, 6, 9, cells, g);
    for (int i = 0; i < 6; ++i)
        for (int j = 0; j < 6; ++j) inverse[i][j] *= unit[i] * unit[j];
    for (int i = 0; i < 6; ++i)
        for (int j = 0; j < 6; ++j) {
            left[i][j] = 0;
            for (int k = 0; k < 6; ++k) left[i][j] += inverse[i][k] * g[6 * k + j];
        }
    for (int i = 0; i < 6; ++i) {
        for (int j = 0; j < 6; ++j) {
            double s = 0;
            for (int k = 0; k < 6; ++k) s += left[i][k] * inverse[k][j];
            out.pose[i][j] = s * misfit * misfit;
        }
        for (int j = 0; j < 3; ++j) {
            out.slip[i][j] = 0;
            for (int k = 0; k < 6; ++k) out.slip[i][j] += inverse[i][k] * hessian[9 * k + 6 + j];
        }
    }
    return true;
}

struct Geometry {
    double sdd, sod, pitch_u, pitch_v;
};

// Trace of a covariance, and that of its square.
using Moments = std::pair<double, double>;

// Of the error at x (3, mm, C-arm frame): in space, and in the picture's plane through it. pose 6 x 6, slip 6 x 3 row by
// row; prior: standard deviations of ln SDD and the principal point's u, v (px); tissue: mm along each axis.
inline std::pair<Moments, Moments> at(const double* x, const Geometry& g, const double* pose, const double* slip, const double* prior,
                                      double tissue) {
    const double depth = std::max(g.sod - x[2], 1.0);
    // d x / d xi, and of the place in the plane
    const double space[3][6] = {{0, x[2], -x[1], 1, 0, 0}, {-x[2], 0, x[0], 0, 1, 0}, {x[1], -x[0], 0, 0, 0, 1}};
    const double direct[2][3] = {{x[0], g.pitch_u * depth / g.sdd, 0}, {x[1], 0, g.pitch_v * depth / g.sdd}};
    double plane[2][6];
    for (int a = 0; a < 2; ++a)
        for (int i = 0; i < 6; ++i) plane[a][i] = space[a][i] + x[a] / depth * space[2][i];
    const auto moments = [&](const double (*by)[6], int n, bool told) {
        double covariance[3][3], follow[3][3], left[3][6];
        for (int a = 0; a < n; ++a) {
            for (int p = 0; p < 3; ++p) {
                double s = told ? -direct[a][p] : 0;
                for (int i = 0; i < 6; ++i) s += by[a][i] * slip[3 * i + p];
                follow[a][p] = s * prior[p];
            }
            for (int j = 0; j < 6; ++j) {
                left[a][j] = 0;
                for (int i = 0; i < 6; ++i) left[a][j] += by[a][i] * pose[6 * i + j];
            }
        }
        Moments out{0, 0};
        for (int a = 0; a < n; ++a)
            for (int b = 0; b < n; ++b) {
                double s = a == b ? tissue * tissue : 0;
                for (int j = 0; j < 6; ++j) s += left[a][j] * by[b][j];
                for (int p = 0; p < 3; ++p) s += follow[a][p] * follow[b][p];
                covariance[a][b] = s;
                out.second += s * s;
            }
        for (int a = 0; a < n; ++a) out.first += covariance[a][a];
        return out;
    };
    return {moments(space, 3, false), moments(plane, 2, true)};
}

}  // namespace doubt
