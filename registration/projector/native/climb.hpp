// SPDX-License-Identifier: Apache-2.0
// Many poses, each on its way to the nearest maximum of the correlation of a small picture: solver.py's
// Levenberg-Marquardt for one body, one view and one cell (similarity NCC, or GRADIENT), without leaving C++ and
// without its shortcuts.
//
// With a, b the centered channels of computed and measured picture, W weights, A = sum W a a, B = sum W b b,
// r = sum W a b / sqrt(A B), and g the derivative of a:
//   gradient = r / A sum W a g - 1 / sqrt(A B) sum W b g
//   hessian  = r / A (sum W g g' - (sum W g)(sum W g)' / sum W - (sum W a g)(sum W a g)' / A)
// which are correlation.hpp's up to the factor that all of them share. What bounds the speed is the projection:
// some 60 us for 32 x 32 pixels through 30^3 voxels with its derivative, against 6 us for the sums.
#pragma once
#include <algorithm>
#include <vector>

#include "pose.hpp"

namespace projector {

constexpr int LANES = 16;  // sums run in sixteen lanes whatever the processor has: the same bits everywhere
typedef float Lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

inline Lanes lanes(const float* p) { return *reinterpret_cast<const Lanes*>(p); }

inline float total(Lanes a) {
    float s = 0;
    for (int i = 0; i < LANES; ++i) s += a[i];
    return s;
}

// What is looked for: channels of the measured picture, centered, and their weights; padded to LANES.
struct Target {
    int h, w, channels, n;             // n: floats a channel
    std::vector<float> weight, b, wb;  // n, channels * n, channels * n
    double norm, mass;

    Target(const float* fixed, const float* weights, int h, int w, bool gradient);
};

// Channels of a picture (h x w): itself, or its central differences along x and y, into out (channels * n).
inline void channels_of(const float* picture, int h, int w, int channels, int n, float* out) {
    if (channels == 1) {
        std::copy(picture, picture + h * w, out);
        return;
    }
    for (int y = 1; y < h - 1; ++y) {
        const float* at = picture + y * w;
        float *x_out = out + (y - 1) * (w - 2) - 1, *y_out = x_out + n;
        for (int x = 1; x < w - 1; ++x) x_out[x] = at[x + 1] - at[x - 1], y_out[x] = at[x + w] - at[x - w];
    }
}

inline Target::Target(const float* fixed, const float* weights, int rows, int cols, bool gradient)
    : h(rows), w(cols), channels(gradient ? 2 : 1) {
    const int used = gradient ? (h - 2) * (w - 2) : h * w;
    n = (used + LANES - 1) / LANES * LANES;
    weight.assign(n, 0.f), b.assign(channels * n, 0.f), wb.assign(channels * n, 0.f);
    if (gradient) {
        // a difference is worth no more than the worst pixel that it touches
        for (int y = 1; y < h - 1; ++y)
            for (int x = 1; x < w - 1; ++x) {
                const float* at = weights + y * w + x;
                weight[(y - 1) * (w - 2) + x - 1] = std::min({at[0], at[-1], at[1], at[-w], at[w]});
            }
    } else {
        std::copy(weights, weights + used, weight.begin());
    }
    channels_of(fixed, h, w, channels, n, b.data());
    norm = 1e-12, mass = 1e-12;
    for (int i = 0; i < n; ++i) mass += weight[i];
    for (int c = 0; c < channels; ++c) {
        float* at = &b[c * n];
        double mean = 0;
        for (int i = 0; i < n; ++i) mean += weight[i] * at[i];
        for (int i = 0; i < used; ++i) at[i] -= static_cast<float>(mean / mass);
        for (int i = 0; i < n; ++i) wb[c * n + i] = weight[i] * at[i], norm += wb[c * n + i] * at[i];
    }
}

// One thread's place to work: the picture and its derivative, and their channels.
struct Bench {
    std::vector<float> picture, jacobian, channels;  // h * w, 6 * h * w, 7 * channels * n
    explicit Bench(const Target& t)
        : picture(static_cast<std::size_t>(t.h) * t.w), jacobian(6 * picture.size()),
          channels(7 * static_cast<std::size_t>(t.channels) * t.n) {}
};

struct Fit {
    double r = -1;
    double hessian[6][6], gradient[6];
};

// Correlation of the bench's picture with the target, and with `slope` its normal equations.
static Fit fit(const Target& t, Bench& bench, bool slope) {
    Fit out;
    const std::size_t pixels = bench.picture.size();
    const int all = t.channels * t.n;
    float* const a = bench.channels.data();
    channels_of(bench.picture.data(), t.h, t.w, t.channels, t.n, a);
    double aa = 1e-12, ab = 0;
    for (int c = 0; c < t.channels; ++c) {
        Lanes mean = {};
        for (int i = 0; i < t.n; i += LANES) mean += lanes(&t.weight[i]) * lanes(a + c * t.n + i);
        const float m = static_cast<float>(total(mean) / t.mass);
        Lanes two = {}, cross = {};
        for (int i = 0; i < t.n; i += LANES) {
            Lanes& at = *reinterpret_cast<Lanes*>(a + c * t.n + i);
            at -= m;
            two += lanes(&t.weight[i]) * at * at;
            cross += lanes(&t.wb[c * t.n + i]) * at;
        }
        aa += total(two), ab += total(cross);
    }
    out.r = ab / std::sqrt(aa * t.norm);
    if (!slope) return out;
    const double pull = std::max(out.r, 0.05) / aa;
    double along[6];
    for (int p = 0; p < 6; ++p)
        channels_of(bench.jacobian.data() + p * pixels, t.h, t.w, t.channels, t.n, a + (p + 1) * all);
    for (int p = 0; p < 6; ++p) {
        const float* g = a + (p + 1) * all;
        Lanes by_a = {}, by_b = {};
        for (int i = 0; i < all; i += LANES) {
            const Lanes gi = lanes(g + i);
            by_a += lanes(&t.weight[i % t.n]) * lanes(a + i) * gi;
            by_b += lanes(&t.wb[i]) * gi;
        }
        along[p] = total(by_a);
        out.gradient[p] = out.r / aa * along[p] - total(by_b) / std::sqrt(aa * t.norm);
    }
    double mean[6][2];
    for (int p = 0; p < 6; ++p)
        for (int c = 0; c < t.channels; ++c) {
            const float* g = a + (p + 1) * all + c * t.n;
            Lanes sum = {};
            for (int i = 0; i < t.n; i += LANES) sum += lanes(&t.weight[i]) * lanes(g + i);
            mean[p][c] = total(sum);
        }
    for (int p = 0; p < 6; ++p)
        for (int q = 0; q <= p; ++q) {
            const float *g = a + (p + 1) * all, *k = a + (q + 1) * all;
            Lanes sum = {};
            for (int i = 0; i < all; i += LANES)
                sum += lanes(&t.weight[i % t.n]) * lanes(g + i) * lanes(k + i);
            double value = total(sum) - along[p] * along[q] / aa;
            for (int c = 0; c < t.channels; ++c) value -= mean[p][c] * mean[q][c] / t.mass;
            out.hessian[p][q] = out.hessian[q][p] = pull * value;
        }
    return out;
}

// -(H + damping diag + little) ^ -1 g by Cholesky; false where that is not positive. The bounds of solver.py.
inline bool step_of(const Fit& f, double damping, double* step) {
    constexpr double unit[6] = {1, 1, 1, 1e-4, 1e-4, 1e-4}, most[6] = {0.2, 0.2, 0.2, 30, 30, 80};
    double l[6][6], top = 0;
    for (int i = 0; i < 6; ++i) top = std::max(top, f.hessian[i][i]);
    for (int i = 0; i < 6; ++i)
        for (int j = 0; j <= i; ++j) {
            double s = f.hessian[i][j];
            if (i == j) s += damping * std::max(f.hessian[i][i], 1e-12) + 1e-9 * top * unit[i];
            for (int n = 0; n < j; ++n) s -= l[i][n] * l[j][n];
            if (i == j && !(s > 0)) return false;
            l[i][j] = i == j ? std::sqrt(s) : s / l[j][j];
        }
    for (int i = 0; i < 6; ++i) {
        step[i] = -f.gradient[i];
        for (int n = 0; n < i; ++n) step[i] -= l[i][n] * step[n];
        step[i] /= l[i][i];
    }
    for (int i = 5; i >= 0; --i) {
        for (int n = i + 1; n < 6; ++n) step[i] -= l[n][i] * step[n];
        step[i] /= l[i][i];
    }
    double excess = 1;
    for (int i = 0; i < 6; ++i) excess = std::max(excess, std::abs(step[i]) / most[i]);
    for (int i = 0; i < 6; ++i) step[i] /= excess;
    return std::isfinite(excess);
}

// How far a step moves the picture of a point some 100 mm from the isocenter, px (about); as in solver.py.
inline double movement_px(const double* s, const Arm& arm) {
    const auto largest = [](const double* v, int n) {
        double m = 0;
        for (int i = 0; i < n; ++i) m = std::max(m, std::abs(v[i]));
        return m;
    };
    return (100 * largest(s, 3) + largest(s + 3, 2) + 0.13 * std::abs(s[5])) / mm_per_px(arm);
}

inline Fit look(const Path& path, const Matter& matter, const Arm& arm, const Target& target, const Pose& pose,
                Bench& bench, bool slope) {
    int axis = 0;
    const View view = view_at(matter, arm, pose, axis);
    const auto apart = static_cast<std::ptrdiff_t>(bench.picture.size());
    const Out out{bench.picture.data(), slope ? bench.jacobian.data() : nullptr, 0, apart};
    path.direct(matter.planes[axis], view, out, 0, target.h);
    return fit(target, bench, slope);
}

// Let a pose climb for some iterations; returns its correlation there. None: only its correlation.
inline double climb(const Path& path, const Matter& matter, const Arm& arm, const Target& target, int iterations,
                    double tolerance_px, Pose& pose, Bench& bench) {
    Fit here = look(path, matter, arm, target, pose, bench, iterations > 0);
    double damping = 1e-3, step[6];
    for (int i = 0; i < iterations; ++i) {
        if (!step_of(here, damping, step) || movement_px(step, arm) < tolerance_px) break;
        const Pose there = moved(pose, step);
        const Fit next = look(path, matter, arm, target, there, bench, true);
        if (next.r > here.r) {
            pose = there, here = next, damping = std::max(damping * 0.2, 1e-5);
        } else {
            damping = std::max(damping * 8, 1e-2);
            if (damping > 1e3) break;
        }
    }
    return here.r;
}

}  // namespace projector
