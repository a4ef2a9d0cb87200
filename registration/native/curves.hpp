// SPDX-License-Identifier: Apache-2.0
// Curves in space against the skeleton of a picture: nearest neighbors and residuals of registration/curve_fit.py.
//
// A tracked frame asks some 10 times for 800 projected points and 1,400 skeleton points. A search tree over points
// that move with every step costs 3 ms to build and ask; a grid of cells holding them in counted order costs 0.2.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace vessels {

struct Near {
    int index = -1;  // none within reach
    double square = 0;
};

// Points (x, y) in mm with two more coordinates (a, b), sorted into square cells over x and y. The nearest is asked
// for by all four (or by x and y only); rings of cells are looked through until the next is too far away.
class Cells {
  public:
    static constexpr double SIDE = 3.0;  // mm: matched points lie nearer than one cell

    void fill(const std::vector<double>& points) {  // (n, 4)
        const std::size_t n = points.size() / 4;
        low_[0] = low_[1] = std::numeric_limits<double>::max();
        double high[2] = {-low_[0], -low_[1]};
        for (std::size_t k = 0; k < n; ++k)
            for (int d : {0, 1}) low_[d] = std::min(low_[d], points[4 * k + d]), high[d] = std::max(high[d], points[4 * k + d]);
        // a pose that throws points far apart gets larger cells, not a larger grid
        side_ = std::max({SIDE, n ? (high[0] - low_[0]) / 255 : 0, n ? (high[1] - low_[1]) / 255 : 0});
        cols_ = n ? static_cast<int>((high[0] - low_[0]) / side_) + 1 : 0;
        rows_ = n ? static_cast<int>((high[1] - low_[1]) / side_) + 1 : 0;
        first_.assign(static_cast<std::size_t>(rows_) * cols_ + 1, 0);
        std::vector<int> cell(n);
        for (std::size_t k = 0; k < n; ++k) {
            cell[k] = at(points[4 * k + 1], 1) * cols_ + at(points[4 * k], 0);
            ++first_[cell[k] + 1];
        }
        for (std::size_t c = 1; c < first_.size(); ++c) first_[c] += first_[c - 1];
        std::vector<int> next(first_.begin(), first_.end());
        sorted_.resize(4 * n), index_.resize(n);
        for (std::size_t k = 0; k < n; ++k) {
            const int to = next[cell[k]]++;
            index_[to] = static_cast<int>(k);
            std::copy_n(points.data() + 4 * k, 4, sorted_.data() + 4 * static_cast<std::size_t>(to));
        }
    }

    // Equally near points: the one that was given first.
    template <int D> Near nearest(const double* p, double reach) const {
        Near best{-1, reach * reach};
        if (index_.empty()) return best;
        const int cx = static_cast<int>(std::floor((p[0] - low_[0]) / side_)), cy = static_cast<int>(std::floor((p[1] - low_[1]) / side_));
        // from outside the grid, the first rings are empty
        const int begin = std::max({0, -cx, cx - cols_ + 1, -cy, cy - rows_ + 1});
        const int end = std::max(std::max(cx, cols_ - 1 - cx), std::max(cy, rows_ - 1 - cy));
        const double inner = std::min(std::min(p[0] - low_[0] - cx * side_, (cx + 1) * side_ - p[0] + low_[0]),
                                      std::min(p[1] - low_[1] - cy * side_, (cy + 1) * side_ - p[1] + low_[1]));
        for (int ring = begin; ring <= end; ++ring) {
            const double gap = ring == 0 ? 0.0 : inner + (ring - 1) * side_;
            if (gap * gap > best.square) break;
            for (int y = std::max(cy - ring, 0); y <= std::min(cy + ring, rows_ - 1); ++y) {
                const bool whole = y == cy - ring || y == cy + ring;
                for (int x = cx - ring; x <= cx + ring; x += whole || ring == 0 ? 1 : 2 * ring)
                    if (x >= 0 && x < cols_) look<D>(p, y * cols_ + x, best);
            }
        }
        return best;
    }

  private:
    int at(double v, int d) const { return static_cast<int>((v - low_[d]) / side_); }

    template <int D> void look(const double* p, int cell, Near& best) const {
        for (int k = first_[cell]; k < first_[cell + 1]; ++k) {
            double square = 0;
            for (int d = 0; d < D; ++d) {
                const double off = p[d] - sorted_[4 * static_cast<std::size_t>(k) + d];
                square += off * off;
            }
            if (square < best.square || (square == best.square && best.index >= 0 && index_[k] < best.index))
                best = {index_[k], square};
        }
    }

    double low_[2] = {0, 0}, side_ = SIDE;
    int rows_ = 0, cols_ = 0;
    std::vector<int> first_, index_;
    std::vector<double> sorted_;
};

struct Camera {  // of a picture in mm at the isocenter, and how its pixels follow: u = cu + x / mm_u
    double sod, mm_u, mm_v, cu, cv;
};

struct Weights {  // of registration/curve_fit.py
    double angle_mm, along, empty_weight;
};

// One skeleton, asked again and again. Tangents are unit vectors without a sign.
class Seen {
  public:
    Seen(const double* points, const double* tangents, int n, const std::uint8_t* field, int rows, int cols, Camera camera,
         double angle_mm)
        : points_(points, points + 2 * n), tangents_(tangents, tangents + 2 * n),
          field_(field, field + static_cast<std::size_t>(rows) * cols), rows_(rows), cols_(cols), camera_(camera) {
        for (int k = 0; k < n; ++k) with_angle(&points_[2 * k], &tangents_[2 * k], angle_mm, own_);
        cells_.fill(own_);
    }

    std::size_t size() const { return points_.size() / 2; }

    // Curves at a pose: what a residual needs of each point that has a picture.
    struct Line {
        std::vector<double> x, flat, tangent, own;  // (n, 3), (n, 2), (n, 2), (n, 4)
        std::vector<int> inside;                    // of them, those in the field
        std::vector<int> of;                        // which of the curves' points each is
    };

    Line projected(const double* points, const double* tangents, int n, const double* pose, double angle_mm) const {
        Line out;
        for (int k = 0; k < n; ++k) {
            double x[3], t[3];
            for (int r = 0; r < 3; ++r) {
                const double* row = pose + 4 * r;
                x[r] = row[0] * points[3 * k] + row[1] * points[3 * k + 1] + row[2] * points[3 * k + 2] + row[3];
                t[r] = row[0] * tangents[3 * k] + row[1] * tangents[3 * k + 1] + row[2] * tangents[3 * k + 2];
            }
            const double depth = camera_.sod - x[2];
            if (!(depth > 0.05 * camera_.sod)) continue;  // behind the source or as good as in it
            const double m = camera_.sod / depth, flat[2] = {x[0] * m, x[1] * m};
            double along[2] = {m * t[0] + flat[0] * m / camera_.sod * t[2], m * t[1] + flat[1] * m / camera_.sod * t[2]};
            const double length = std::hypot(along[0], along[1]);
            for (double& a : along) a = length > 0.1 ? a / length : 0.0;  // seen end on: no direction
            if (in_field(flat)) out.inside.push_back(static_cast<int>(out.of.size()));
            out.of.push_back(k);
            out.x.insert(out.x.end(), x, x + 3), out.flat.insert(out.flat.end(), flat, flat + 2);
            out.tangent.insert(out.tangent.end(), along, along + 2);
            with_angle(flat, along, angle_mm, out.own);
        }
        return out;
    }

    // Residuals r, Jacobian j (9 columns), weights w of both directions; first all those across the vessels, then all
    // those along them. The robust cost; a negative one where fewer than 5 points fall into the field, 8 find a match.
    double residuals(const Line& line, double scale, const Weights& rules, std::vector<double>& r, std::vector<double>& j,
                     std::vector<double>& w) const {
        if (line.inside.size() < 5) return -1;
        Cells moving;
        moving.fill(line.own);
        const double reach = 6 * scale + rules.angle_mm, s2 = scale * scale;
        const double seen_share = 1.0 / static_cast<double>(size());
        const double empty_share = rules.empty_weight / static_cast<double>(line.inside.size());
        struct Pair { int curve; const double *target, *along; double share, square; };
        std::vector<Pair> pairs;
        pairs.reserve(size() + line.inside.size());
        double cost = 0;
        const auto matched = [&](int curve, const double* target, const double* along, double share, const Near& near) {
            if (near.index < 0) cost += share;
            else pairs.push_back({curve, target, along, share, near.square}), cost += share * near.square / (s2 + near.square);
        };
        for (std::size_t k = 0; k < size(); ++k) {
            const Near near = moving.nearest<4>(&own_[4 * k], reach);
            matched(near.index, &points_[2 * k], near.index < 0 ? nullptr : &line.tangent[2 * near.index], seen_share, near);
        }
        for (int k : line.inside) {
            const Near near = cells_.nearest<4>(&line.own[4 * k], reach);
            const int at = std::max(near.index, 0);
            matched(k, &points_[2 * at], &tangents_[2 * at], empty_share, near);
        }
        const std::size_t n = pairs.size();
        if (n < 8) return -1;
        r.resize(2 * n), w.resize(2 * n), j.resize(18 * n);
        for (std::size_t k = 0; k < n; ++k) {
            const Pair& p = pairs[k];
            const double *flat = &line.flat[2 * p.curve], delta[2] = {flat[0] - p.target[0], flat[1] - p.target[1]};
            double along[2] = {p.along[0], p.along[1]}, across[2] = {-along[1], along[0]};
            if (along[0] == 0 && along[1] == 0) {  // end on: the distance itself counts
                const double far = std::max(std::hypot(delta[0], delta[1]), 1e-9);
                across[0] = delta[0] / far, across[1] = delta[1] / far;
            }
            const double soft = s2 / (s2 + p.square), weight = p.share * soft * soft;  // Geman, McClure 1987
            row(across, delta, &line.x[3 * p.curve], flat, &r[k], &j[9 * k]);
            row(along, delta, &line.x[3 * p.curve], flat, &r[n + k], &j[9 * (n + k)]);
            w[k] = weight, w[n + k] = rules.along * weight;
        }
        return cost;
    }

    // Plain distances: of each skeleton point to the curves, of each of `n` curve points to the skeleton (negative
    // outside of the field).
    void distances(const Line& line, int n, std::vector<double>& to_curve, std::vector<double>& to_skeleton) const {
        constexpr double anywhere = 1e6;
        to_skeleton.assign(n, -1.0), to_curve.assign(size(), -1.0);
        if (line.inside.empty()) return;
        Cells moving;
        moving.fill(line.own);
        for (std::size_t k = 0; k < size(); ++k) to_curve[k] = std::sqrt(moving.nearest<2>(&own_[4 * k], anywhere).square);
        for (int k : line.inside) to_skeleton[line.of[k]] = std::sqrt(cells_.nearest<2>(&line.own[4 * k], anywhere).square);
    }

  private:
    // Undirected direction as two more coordinates: the double angle.
    static void with_angle(const double* point, const double* t, double angle_mm, std::vector<double>& out) {
        for (double v : {point[0], point[1], angle_mm * (t[0] * t[0] - t[1] * t[1]), angle_mm * 2 * t[0] * t[1]}) out.push_back(v);
    }

    bool in_field(const double* flat) const {
        const double u = std::nearbyint(flat[0] / camera_.mm_u + camera_.cu), v = std::nearbyint(flat[1] / camera_.mm_v + camera_.cv);
        return u >= 0 && v >= 0 && u < cols_ && v < rows_ && field_[static_cast<std::size_t>(v) * cols_ + static_cast<std::size_t>(u)];
    }

    // One residual n . delta and its derivatives by the pose (left, about the isocenter), ln SDD and the principal point
    // (px): with flat = m (x, y), m = SOD / (SOD - z), d flat / d z = flat m / SOD.
    void row(const double* n, const double* delta, const double* x, const double* flat, double* r, double* j) const {
        const double m = camera_.sod / (camera_.sod - x[2]);
        *r = n[0] * delta[0] + n[1] * delta[1];
        const double g[3] = {n[0] * m, n[1] * m, (n[0] * flat[0] + n[1] * flat[1]) * m / camera_.sod};
        j[0] = x[1] * g[2] - x[2] * g[1], j[1] = x[2] * g[0] - x[0] * g[2], j[2] = x[0] * g[1] - x[1] * g[0];
        j[3] = g[0], j[4] = g[1], j[5] = g[2];
        j[6] = n[0] * flat[0] + n[1] * flat[1], j[7] = n[0] * camera_.mm_u, j[8] = n[1] * camera_.mm_v;
    }

    std::vector<double> points_, tangents_, own_;
    std::vector<std::uint8_t> field_;
    int rows_, cols_;
    Camera camera_;
    Cells cells_;
};

}  // namespace vessels
