// SPDX-License-Identifier: Apache-2.0
// Normalized correlation of two pictures (or of their gradients) over the cells of a grid, with its
// Gauss-Newton normal equations, in three passes over the pixels.
//
//   r_p = sum W a b / sqrt(A_p B_p)              a, b: channels less their weighted mean in cell p
//   A_p = sum W a^2 + floor * mean(A) + eps      (B_p alike; the floor only where there are several cells)
//   cost = -1/2 sum_p share_p log(1 - max(r_p, 0)^2)
//
// With g = channels of the Jacobian, q = max(r, 0) / (1 - max(r, 0)^2), A_p and B_p as above:
//   gradient = sum_p share_p q (r / A sum W a g - 1 / sqrt(A B) sum W b g)
//   hessian  = sum_p share_p q max(r, 0) / A (sum W g g' - (sum W g)(sum W g)' / sum W - (sum W a g)(sum W a g)' / A)
//
// What bounds the speed: 21 products a pixel and channel for six parameters; rows of the Jacobian are
// turned into rows of channels first, so that every sum is a dot product of contiguous floats.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define FLUORONAV_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FLUORONAV_CLONES
#endif

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

    static std::vector<int> starts(int n, int edge) {
        const int count = edge > 0 ? std::max(1, n / edge) : 1;
        std::vector<int> out(count + 1);
        for (int i = 0; i < count; ++i) out[i] = i * edge;
        out[count] = n;
        return out;
    }
};

FLUORONAV_CLONES inline float dot3(const float* a, const float* b, const float* c, int n) {
    float s = 0;
#pragma GCC ivdep
    for (int i = 0; i < n; ++i) s += a[i] * b[i] * c[i];
    return s;
}

FLUORONAV_CLONES inline float dot2(const float* a, const float* b, int n) {
    float s = 0;
#pragma GCC ivdep
    for (int i = 0; i < n; ++i) s += a[i] * b[i];
    return s;
}

FLUORONAV_CLONES inline void multiply(const float* a, const float* b, float* out, int n) {
#pragma GCC ivdep
    for (int i = 0; i < n; ++i) out[i] = a[i] * b[i];
}

// One row of channel c of a picture: the picture itself, or a central difference along x (c = 0) or y (c = 1).
FLUORONAV_CLONES inline void channel_row(const float* picture, int stride, int y, int n, int c, bool gradient, float* out) {
    const float* at = picture + static_cast<std::ptrdiff_t>(y) * stride;
    if (!gradient) {
        std::copy(at, at + n, out);
        return;
    }
    const float *ahead = c == 0 ? at + stride + 2 : at + 2 * stride + 1, *behind = c == 0 ? at + stride : at + 1;
#pragma GCC ivdep
    for (int i = 0; i < n; ++i) out[i] = ahead[i] - behind[i];
}

struct Result {
    double value = 0, information = 0;
    std::vector<double> r, mass;                    // a cell
    std::vector<double> hessian, gradient, scores;  // n x n, n, cells x n
};

class Correlation {
public:
    Correlation(const float* moving, const float* fixed, const float* weight, int h, int w, Settings s)
        : settings(s), stride(w), channels(s.gradient ? 2 : 1), height(s.gradient ? h - 2 : h),
          width(s.gradient ? w - 2 : w), grid(height, width, s.patch), a(size() * channels), b(size() * channels),
          mask(size()), weighted(size() * channels) {
        weights(weight);
        for (int c = 0; c < channels; ++c)
            for (int y = 0; y < height; ++y) {
                channel_row(moving, stride, y, width, c, s.gradient, row(a, c, y));
                channel_row(fixed, stride, y, width, c, s.gradient, row(b, c, y));
            }
        center();
        correlate();
    }

    void normal_equations(const float* jacobian, int n) {
        const Grid cells(height, width, settings.score);
        result.hessian.assign(n * n, 0);
        result.gradient.assign(n, 0);
        result.scores.assign(static_cast<std::size_t>(cells.cells()) * n, 0);
        const int np = grid.cells();
        std::vector<double> mean(static_cast<std::size_t>(np) * channels * n, 0), along(static_cast<std::size_t>(np) * n, 0);
        std::vector<float> g(static_cast<std::size_t>(n) * width), dg(width), force(width), density(width);
        const std::size_t plane = static_cast<std::size_t>(height + (settings.gradient ? 2 : 0)) * stride;
        for (int y = 0, py = 0, sy = 0; y < height; ++y) {
            while (y >= grid.rows[py + 1]) ++py;
            while (y >= cells.rows[sy + 1]) ++sy;
            for (int c = 0; c < channels; ++c) {
                forces(c, y, py, force.data(), density.data());
                for (int i = 0; i < n; ++i)
                    channel_row(jacobian + i * plane, stride, y, width, c, settings.gradient, &g[static_cast<std::size_t>(i) * width]);
                for (int i = 0; i < n; ++i) {
                    const float* gi = &g[static_cast<std::size_t>(i) * width];
                    multiply(gi, density.data(), dg.data(), width);
                    for (int j = 0; j <= i; ++j) result.hessian[i * n + j] += dot2(dg.data(), &g[static_cast<std::size_t>(j) * width], width);
                    for (int px = 0; px < grid.across(); ++px) {
                        const int x = grid.cols[px], len = grid.cols[px + 1] - x, p = py * grid.across() + px;
                        mean[(static_cast<std::size_t>(p) * channels + c) * n + i] += dot2(gi + x, mask_row(y) + x, len);
                        along[static_cast<std::size_t>(p) * n + i] += dot2(gi + x, row(weighted, c, y) + x, len);
                    }
                    for (int sx = 0; sx < cells.across(); ++sx) {
                        const int x = cells.cols[sx], len = cells.cols[sx + 1] - x;
                        result.scores[static_cast<std::size_t>(sy * cells.across() + sx) * n + i] += dot2(gi + x, &force[x], len);
                    }
                }
            }
        }
        for (int p = 0; p < np; ++p) subtract(p, n, &mean[static_cast<std::size_t>(p) * channels * n], &along[static_cast<std::size_t>(p) * n]);
        for (int i = 0; i < n; ++i)
            for (int j = 0; j < i; ++j) result.hessian[j * n + i] = result.hessian[i * n + j];
        for (int s = 0; s < cells.cells(); ++s)
            for (int i = 0; i < n; ++i) result.gradient[i] += result.scores[static_cast<std::size_t>(s) * n + i];
    }

    // Weights lowered where only one picture has something: 1 / (1 + (e / s)^4) of what is left after the best
    // scale and offset of each cell, s = 2.2 medians. Gaussian noise keeps 0.9 of its weight, a wire of ten
    // medians 0.002. Written into `out` (the whole picture, h x w), which holds the weights before.
    void robust(float* out) {
        std::vector<float> residual(size(), 0.0f), seen;
        each_segment([&](int y, int x, int len, int p) {
            const float scale = static_cast<float>(result.r[p] * std::sqrt(norm_b[p] / norm_a[p]));
            float* e = &residual[static_cast<std::size_t>(y) * width + x];
            for (int c = 0; c < channels; ++c) {
                const float *ra = row(a, c, y) + x, *rb = row(b, c, y) + x;
                for (int i = 0; i < len; ++i) e[i] += (rb[i] - scale * ra[i]) * (rb[i] - scale * ra[i]);
            }
        });
        for (std::size_t i = 0; i < size(); i += 3)
            if (mask[i] > 0) seen.push_back(residual[i]);
        if (seen.empty()) return;
        std::nth_element(seen.begin(), seen.begin() + static_cast<std::ptrdiff_t>(seen.size() / 2), seen.end());
        const float bound = 1.0f / (2.2f * 2.2f * seen[seen.size() / 2] + 1e-24f);
        const int edge = settings.gradient ? 1 : 0;
        for (int y = 0; y < height; ++y)
            for (int x = 0; x < width; ++x) {
                const float e = residual[static_cast<std::size_t>(y) * width + x] * bound;
                out[static_cast<std::ptrdiff_t>(y + edge) * stride + x + edge] *= 1.0f / (1.0f + e * e);
            }
    }

    // Energy of the fixed picture a cell, without the floor: what noise is compared with.
    double energy_fixed(int p) const { return norm_b[p]; }

    Result result;

private:
    Settings settings;
    int stride, channels, height, width;
    Grid grid;
    std::vector<float> a, b, mask, weighted;  // centered channels, weights, W a
    std::vector<double> norm_a, norm_b, share;

    std::size_t size() const { return static_cast<std::size_t>(height) * width; }
    float* row(std::vector<float>& x, int c, int y) { return &x[(static_cast<std::size_t>(c) * height + y) * width]; }
    float* mask_row(int y) { return &mask[static_cast<std::size_t>(y) * width]; }

    // A difference is worth no more than the worst pixel that it touches.
    void weights(const float* weight) {
        for (int y = 0; y < height; ++y) {
            const float* at = weight + static_cast<std::ptrdiff_t>(y) * stride;
            float* out = mask_row(y);
            if (!settings.gradient) {
                std::copy(at, at + width, out);
                continue;
            }
            const float *mid = at + stride, *low = mid + stride;
            for (int x = 0; x < width; ++x)
                out[x] = std::min({mid[x], mid[x + 1], mid[x + 2], at[x + 1], low[x + 1]});
        }
    }

    template <class Visit> void each_segment(Visit&& visit) {
        for (int y = 0, py = 0; y < height; ++y) {
            while (y >= grid.rows[py + 1]) ++py;
            for (int px = 0; px < grid.across(); ++px)
                visit(y, grid.cols[px], grid.cols[px + 1] - grid.cols[px], py * grid.across() + px);
        }
    }

    void center() {
        const int np = grid.cells();
        std::vector<double> mean_a(np * channels, 0), mean_b(np * channels, 0);
        result.mass.assign(np, 0);
        each_segment([&](int y, int x, int len, int p) {
            const float* w = mask_row(y) + x;
            float total = 0;
            for (int i = 0; i < len; ++i) total += w[i];
            result.mass[p] += total;
            for (int c = 0; c < channels; ++c) {
                mean_a[p * channels + c] += dot2(w, row(a, c, y) + x, len);
                mean_b[p * channels + c] += dot2(w, row(b, c, y) + x, len);
            }
        });
        for (int p = 0; p < np; ++p)
            for (int c = 0; c < channels; ++c) {
                mean_a[p * channels + c] /= std::max(result.mass[p], 1e-12);
                mean_b[p * channels + c] /= std::max(result.mass[p], 1e-12);
            }
        each_segment([&](int y, int x, int len, int p) {
            for (int c = 0; c < channels; ++c) {
                float *ra = row(a, c, y) + x, *rb = row(b, c, y) + x;
                const float ma = static_cast<float>(mean_a[p * channels + c]), mb = static_cast<float>(mean_b[p * channels + c]);
                for (int i = 0; i < len; ++i) ra[i] -= ma, rb[i] -= mb;
                multiply(mask_row(y) + x, ra, row(weighted, c, y) + x, len);
            }
        });
    }

    void correlate() {
        const int np = grid.cells();
        std::vector<double> ab(np, 0);
        norm_a.assign(np, 0), norm_b.assign(np, 0);
        each_segment([&](int y, int x, int len, int p) {
            for (int c = 0; c < channels; ++c) {
                norm_a[p] += dot2(row(weighted, c, y) + x, row(a, c, y) + x, len);
                norm_b[p] += dot3(mask_row(y) + x, row(b, c, y) + x, row(b, c, y) + x, len);
                ab[p] += dot2(row(weighted, c, y) + x, row(b, c, y) + x, len);
            }
        });
        double mean_a = 0, mean_b = 0, mass = 0;
        for (int p = 0; p < np; ++p) mean_a += norm_a[p] / np, mean_b += norm_b[p] / np, mass += result.mass[p];
        const double lift = np > 1 ? settings.floor : 0;
        share.assign(np, 0), result.r.assign(np, 0);
        for (int p = 0; p < np; ++p) {
            norm_a[p] += lift * mean_a + 1e-12, norm_b[p] += lift * mean_b + 1e-12;
            share[p] = result.mass[p] / std::max(mass, 1e-12);
            result.r[p] = ab[p] / std::sqrt(norm_a[p] * norm_b[p]);
            result.information -= share[p] * std::log(left(p));
        }
        result.value = std::sqrt(1 - std::exp(-result.information));
    }

    double positive(int p) const { return std::clamp(result.r[p], 0.0, 0.999); }
    double left(int p) const { return 1 - positive(p) * positive(p); }

    void forces(int c, int y, int py, float* force, float* density) {
        for (int px = 0; px < grid.across(); ++px) {
            const int p = py * grid.across() + px;
            const double pull = share[p] * std::max(result.r[p], 0.0) / left(p);
            const float of_a = static_cast<float>(pull * result.r[p] / norm_a[p]);
            const float of_b = static_cast<float>(pull / std::sqrt(norm_a[p] * norm_b[p]));
            const float dense = static_cast<float>(pull * std::max(result.r[p], 0.0) / norm_a[p]);
            const float *w = mask_row(y), *wa = row(weighted, c, y), *rb = row(b, c, y);
            for (int x = grid.cols[px]; x < grid.cols[px + 1]; ++x) {
                force[x] = of_a * wa[x] - of_b * w[x] * rb[x];
                density[x] = dense * w[x];
            }
        }
    }

    // What scale and offset of a cell explain is not the pose's to explain.
    void subtract(int p, int n, const double* mean, const double* along) {
        const double pull = share[p] * std::max(result.r[p], 0.0) / left(p) * std::max(result.r[p], 0.0) / norm_a[p];
        const double by_mass = pull / std::max(result.mass[p], 1e-12), by_norm = pull / norm_a[p];
        for (int i = 0; i < n; ++i)
            for (int j = 0; j <= i; ++j) {
                double less = by_norm * along[i] * along[j];
                for (int c = 0; c < channels; ++c) less += by_mass * mean[c * n + i] * mean[c * n + j];
                result.hessian[i * n + j] -= less;
            }
    }
};

}  // namespace correlation
