// SPDX-License-Identifier: Apache-2.0
// Normalized correlation of two pictures (or of their gradients) over the cells of a grid, with its
// Gauss-Newton normal equations, from the moments that tiles.hpp sums up.
//
//   r_p = sum W a b / sqrt(A_p B_p)              a, b: channels less their weighted mean in cell p
//   A_p = sum W a^2 + floor * mean(A) + eps      (B_p alike; the floor only where there are several cells)
//   cost = -1/2 sum_p share_p log(1 - max(r_p, 0)^2)
//
// With g = channels of the Jacobian, q = max(r, 0) / (1 - max(r, 0)^2), A_p and B_p as above:
//   gradient = sum_p share_p q (r / A sum W a g - 1 / sqrt(A B) sum W b g)
//   hessian  = sum_p share_p q max(r, 0) / A (sum W g g' - (sum W g)(sum W g)' / sum W - (sum W a g)(sum W a g)' / A)
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "../projector/native/crew.hpp"
#include "tiles.hpp"

namespace correlation {

struct Settings {
    bool gradient;
    int patch;  // 0: one cell
    double floor;
    int score;  // edge of the cells whose summands of the gradient are kept apart
};

struct Grid {
    std::vector<int> rows, cols;  // starts, and the end behind the last

    Grid(int h, int w, int edge) : rows(starts(h, edge)), cols(starts(w, edge)) {}
    int down() const { return static_cast<int>(rows.size()) - 1; }
    int across() const { return static_cast<int>(cols.size()) - 1; }
    int cells() const { return down() * across(); }
    int cell(const Tile& t) const { return place(rows, t.y) * across() + place(cols, t.x); }

private:
    static int place(const std::vector<int>& starts, int at) {
        return static_cast<int>(std::upper_bound(starts.begin(), starts.end() - 1, at) - starts.begin()) - 1;
    }
    static std::vector<int> starts(int n, int edge) {
        const int count = edge > 0 ? std::max(1, n / edge) : 1;
        std::vector<int> out(count + 1);
        for (int i = 0; i < count; ++i) out[i] = i * edge;
        out[count] = n;
        return out;
    }
};

// Lines of both grids, and others between them so that none are farther apart than `most`.
inline std::vector<int> lines(const std::vector<int>& a, const std::vector<int>& b, int most) {
    std::vector<int> both(a);
    both.insert(both.end(), b.begin(), b.end());
    std::sort(both.begin(), both.end());
    both.erase(std::unique(both.begin(), both.end()), both.end());
    std::vector<int> out;
    for (std::size_t i = 0; i + 1 < both.size(); ++i)
        for (int x = both[i]; x < both[i + 1]; x += most) out.push_back(x);
    out.push_back(both.back());
    return out;
}

struct Result {
    double value = 0, information = 0;
    std::vector<double> r, mass;                    // a cell
    std::vector<double> hessian, gradient, scores;  // n x n, n, cells x n
};

class Correlation {
public:
    // Sums are taken tile by tile and added in one order: `threads` changes no bit.
    Correlation(Pictures pictures, Settings settings, int threads)
        : pictures_(pictures), settings_(settings), layout_{pictures.n, pictures.channels()},
          grid_(pictures.height(), pictures.width(), settings.patch),
          cells_(pictures.height(), pictures.width(), settings.score) {
        cut();
        if (!pictures_.gradient) pivot();
        sums_.resize(tiles_.size() * layout_.size());
        sum(true, threads);
    }

    // The same with another computed picture; what the measured one and the Jacobian make up is not summed again.
    void again(const float* moving, int threads) {
        pictures_.moving = moving;
        sum(false, threads);
    }

    // The same with the picture moved along the Jacobian by step (n numbers): every sum follows from those that there are.
    void foresee(const double* step) {
        const int n = layout_.n;
        std::vector<double> shift(n);
        for (std::size_t t = 0; t < tiles_.size(); ++t) {
            double *s = &sums_[t * layout_.size()], aa = 0, ab = 0;
            for (int i = 0; i < n; ++i) {
                shift[i] = 0;
                for (int j = 0; j < n; ++j) shift[i] += step[j] * s[layout_.gg(std::max(i, j), std::min(i, j))];
                aa += step[i] * (2 * s[layout_.ag(i)] + shift[i]), ab += step[i] * s[layout_.bg(i)];
                for (int c = 0; c < layout_.channels; ++c) s[layout_.a(c)] += step[i] * s[layout_.g(c, i)];
            }
            s[layout_.aa()] += aa, s[layout_.ab()] += ab;
            for (int i = 0; i < n; ++i) s[layout_.ag(i)] += shift[i];
        }
        evaluate();
    }

    // Weights lowered where only one picture has something: 1 / (1 + (e / s)^4) of what is left after the best
    // scale and offset of each cell, s = 2.2 medians. Gaussian noise keeps 0.9 of its weight, a wire of ten
    // medians 0.002. Written into `out` (the whole picture, h x w), which holds the weights before.
    void robust(float* out) const {
        const int height = pictures_.height(), width = pictures_.width();
        std::vector<float> residual(static_cast<std::size_t>(height) * width), seen;
        seen.reserve(residual.size() / SAMPLED + 1);
        for (const Tile& t : tiles_) {
            const int p = grid_.cell(t);
            const double scale = result.r[p] * std::sqrt(norm_b_[p] / norm_a_[p]), mass = std::max(result.mass[p], 1e-12);
            double offset[2];
            for (int c = 0; c < layout_.channels; ++c) offset[c] = (of(p, layout_.b(c)) - scale * of(p, layout_.a(c))) / mass;
            residuals(pictures_, t, static_cast<float>(scale), offset, residual.data());
        }
        for (int y = 0, k = 0; y < height; ++y)
            for (int x = 0; x < width; ++x, ++k)
                if (k % SAMPLED == 0 && weight_at(y, x) > 0) seen.push_back(residual[static_cast<std::size_t>(k)]);
        if (seen.empty()) return;
        const auto middle = seen.begin() + static_cast<std::ptrdiff_t>(seen.size() / 2);
        std::nth_element(seen.begin(), middle, seen.end());
        const int edge = pictures_.gradient ? 1 : 0;
        for (int y = 0; y < height; ++y)
            lower(&residual[static_cast<std::size_t>(y) * width], 1.0f / (2.2f * 2.2f * *middle + 1e-24f), width,
                  out + static_cast<std::ptrdiff_t>(y + edge) * pictures_.w + edge);
    }

    // Energy of the fixed picture a cell, with its floor: what noise is compared with.
    double energy_fixed(int p) const { return norm_b_[p]; }

    Result result;

private:
    static constexpr int SAMPLED = 7;  // every seventh pixel tells the median: neighbors say the same

    Pictures pictures_;
    Settings settings_;
    Layout layout_;
    Grid grid_, cells_;
    std::vector<Tile> tiles_;
    int down_ = 0;
    std::vector<double> sums_, totals_;  // a tile, a cell: in the order of Layout
    std::vector<double> norm_a_, norm_b_, share_;

    double of(int p, int which) const { return totals_[static_cast<std::size_t>(p) * layout_.size() + which]; }
    double positive(int p) const { return std::clamp(result.r[p], 0.0, 0.999); }
    double left(int p) const { return 1 - positive(p) * positive(p); }
    // factor of (sum W a g) r / A - (sum W b g) / sqrt(A B)
    double pull(int p) const { return share_[p] * std::max(result.r[p], 0.0) / left(p); }

    void cut() {
        const std::vector<int> rows = lines(grid_.rows, cells_.rows, MOST_ROWS), cols = lines(grid_.cols, cells_.cols, LANES);
        down_ = static_cast<int>(rows.size()) - 1;
        for (std::size_t y = 0; y + 1 < rows.size(); ++y)
            for (std::size_t x = 0; x + 1 < cols.size(); ++x)
                tiles_.push_back({rows[y], cols[x], rows[y + 1] - rows[y], cols[x + 1] - cols[x]});
    }

    void sum(bool all, int threads) {
        const int across = static_cast<int>(tiles_.size()) / down_, n = pictures_.n;
        const double work = static_cast<double>(pictures_.height()) * pictures_.width() * (4 + (all ? n * (n + 4) : 2 * n));
        projector::Crew::run(work < 1e6 ? 1 : threads, {down_}, [&](int, int part, int) {
            for (int x = 0; x < across; ++x) {
                const std::size_t t = static_cast<std::size_t>(part) * across + x;
                sum_tile(pictures_, tiles_[t], all, &sums_[t * layout_.size()]);
            }
        });
        evaluate();
    }

    void evaluate() {
        gather();
        correlate();
        if (layout_.n) normal_equations();
    }

    void pivot() {
        double a = 0, b = 0;
        int count = 0;
        const int n = pictures_.h * pictures_.w;
        for (int i = 0; i < n; i += 61)
            if (pictures_.weight[i] > 0) a += pictures_.moving[i], b += pictures_.fixed[i], ++count;
        if (count) pictures_.pivot_moving = static_cast<float>(a / count), pictures_.pivot_fixed = static_cast<float>(b / count);
    }

    void gather() {
        totals_.assign(static_cast<std::size_t>(grid_.cells()) * layout_.size(), 0);
        for (std::size_t t = 0; t < tiles_.size(); ++t) {
            double* to = &totals_[static_cast<std::size_t>(grid_.cell(tiles_[t])) * layout_.size()];
            const double* from = &sums_[t * layout_.size()];
            for (int i = 0; i < layout_.size(); ++i) to[i] += from[i];
        }
    }

    void correlate() {
        const int np = grid_.cells();
        std::vector<double> ab(np);
        norm_a_.assign(np, 0), norm_b_.assign(np, 0), share_.assign(np, 0), result.r.assign(np, 0), result.mass.assign(np, 0);
        double mean_a = 0, mean_b = 0, mass = 0;
        result.information = 0;
        for (int p = 0; p < np; ++p) {
            result.mass[p] = of(p, 0);
            const double over = 1 / std::max(result.mass[p], 1e-12);
            norm_a_[p] = of(p, layout_.aa()), norm_b_[p] = of(p, layout_.bb()), ab[p] = of(p, layout_.ab());
            for (int c = 0; c < layout_.channels; ++c) {
                const double a = of(p, layout_.a(c)), b = of(p, layout_.b(c));
                norm_a_[p] -= a * a * over, norm_b_[p] -= b * b * over, ab[p] -= a * b * over;
            }
            norm_a_[p] = std::max(norm_a_[p], 0.0), norm_b_[p] = std::max(norm_b_[p], 0.0);
            mean_a += norm_a_[p] / np, mean_b += norm_b_[p] / np, mass += result.mass[p];
        }
        const double lift = np > 1 ? settings_.floor : 0;
        for (int p = 0; p < np; ++p) {
            norm_a_[p] += lift * mean_a + 1e-12, norm_b_[p] += lift * mean_b + 1e-12;
            share_[p] = result.mass[p] / std::max(mass, 1e-12);
            result.r[p] = ab[p] / std::sqrt(norm_a_[p] * norm_b_[p]);
            result.information -= share_[p] * std::log(left(p));
        }
        result.value = std::sqrt(1 - std::exp(-result.information));
    }

    // sum W (a - mean of a) g over what `from` sums up, p: the cell whose mean it is; and the same for b.
    double along(const double* from, int p, int i, bool of_b) const {
        const double over = 1 / std::max(result.mass[p], 1e-12);
        double out = from[of_b ? layout_.bg(i) : layout_.ag(i)];
        for (int c = 0; c < layout_.channels; ++c)
            out -= of(p, of_b ? layout_.b(c) : layout_.a(c)) * over * from[layout_.g(c, i)];
        return out;
    }

    void normal_equations() {
        const int n = layout_.n;
        result.hessian.assign(static_cast<std::size_t>(n) * n, 0);
        result.gradient.assign(n, 0);
        result.scores.assign(static_cast<std::size_t>(cells_.cells()) * n, 0);
        for (std::size_t t = 0; t < tiles_.size(); ++t) {
            const int p = grid_.cell(tiles_[t]);
            double* score = &result.scores[static_cast<std::size_t>(cells_.cell(tiles_[t])) * n];
            const double* from = &sums_[t * layout_.size()];
            const double by_a = pull(p) * result.r[p] / norm_a_[p], by_b = pull(p) / std::sqrt(norm_a_[p] * norm_b_[p]);
            for (int i = 0; i < n; ++i) score[i] += by_a * along(from, p, i, false) - by_b * along(from, p, i, true);
        }
        for (int s = 0; s < cells_.cells(); ++s)
            for (int i = 0; i < n; ++i) result.gradient[i] += result.scores[static_cast<std::size_t>(s) * n + i];
        std::vector<double> by_a(n);
        for (int p = 0; p < grid_.cells(); ++p) {
            const double* from = &totals_[static_cast<std::size_t>(p) * layout_.size()];
            // what scale and offset of a cell explain is not the pose's to explain
            const double dense = pull(p) * std::max(result.r[p], 0.0) / norm_a_[p], over = 1 / std::max(result.mass[p], 1e-12);
            for (int i = 0; i < n; ++i) by_a[i] = along(from, p, i, false);
            for (int i = 0; i < n; ++i)
                for (int j = 0; j <= i; ++j) {
                    double own = from[layout_.gg(i, j)] - by_a[i] * by_a[j] / norm_a_[p];
                    for (int c = 0; c < layout_.channels; ++c) own -= from[layout_.g(c, i)] * from[layout_.g(c, j)] * over;
                    result.hessian[static_cast<std::size_t>(i) * n + j] += dense * own;
                }
        }
        for (int i = 0; i < n; ++i)
            for (int j = 0; j < i; ++j) result.hessian[static_cast<std::size_t>(j) * n + i] = result.hessian[static_cast<std::size_t>(i) * n + j];
    }

    float weight_at(int y, int x) const {
        const float* at = pictures_.weight + static_cast<std::ptrdiff_t>(y) * pictures_.w + x;
        if (!pictures_.gradient) return *at;
        const float *mid = at + pictures_.w, *low = mid + pictures_.w;
        return std::min({mid[0], mid[1], mid[2], at[1], low[1]});
    }

    FLUORONAV_CLONES static void residuals(const Pictures& s, const Tile& t, float scale, const double* offset, float* out) {
        for (int r = 0; r < t.rows; ++r) {
            V sum = {};
            for (int c = 0; c < s.channels(); ++c) {
                const V e = (channel(s, s.fixed, t.y + r, t.x, t.cols, c) - s.pivot_fixed) -
                            scale * (channel(s, s.moving, t.y + r, t.x, t.cols, c) - s.pivot_moving) - static_cast<float>(offset[c]);
                sum += e * e;
            }
            std::memcpy(out + static_cast<std::ptrdiff_t>(t.y + r) * s.width() + t.x, &sum, static_cast<std::size_t>(t.cols) * sizeof(float));
        }
    }

    FLUORONAV_CLONES static void lower(const float* residual, float bound, int n, float* weight) {
#pragma GCC ivdep
        for (int i = 0; i < n; ++i) weight[i] *= 1.0f / (1.0f + residual[i] * bound * residual[i] * bound);
    }
};

}  // namespace correlation
