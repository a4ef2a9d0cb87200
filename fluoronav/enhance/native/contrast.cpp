// SPDX-License-Identifier: Apache-2.0
// Contrast of what is there: a pyramid of four levels whose details are raised where they stand above the noise.
//
// Level l: picture G (G_0 = y), B its 5x5 binomial mean, detail d = G - B; every second pixel of B is the next
//   level. Support: E = blur3(d^2) / (kWhite v floor), 1 where there is only noise; w = smoothstep(E, kLow, kHigh).
//   a = strength kGain gain w d. A is the sum of the a of all levels, expanded linearly.
// Gain: 1, or what `choose` answers: a number of each level on the grid of the third one, linear between. It is told, on
//   that grid, the means of E of the first two levels, E and d of the third, how far the brightest and the darkest pixel
//   of 4x4 lie from G, v; and E and d of the fourth on its own grid.
// Range: lo, hi and mean of some 28x28 pixels (7x7 of the extremes of 4x4). y + A stays within [lo, hi], but on the side
//   of the minority (a line, not its flank, not one side of an edge) it may pass by kPast times the skewness
//   hi + lo - 2 mean, hi - lo at most. So lines grow and get no halo.
// Last, with W the wide surroundings (the mean of the coarsest level): y + A lies between y and y + strength (y - W),
//   so contrast to the surroundings is multiplied by 1 to 1 + strength and never turned round.
//
// Bound by memory: the finest level is read three times and written twice.
#include "contrast.hpp"

#include <nanobind/stl/optional.h>

#include "contrast_levels.hpp"

using namespace nanobind::literals;

namespace fluoronav {

// variance of the detail of white noise of unit variance, by level (a test repeats it)
constexpr float kWhite[kLevels] = {0.794f, 0.0404f, 0.00737f, 0.00174f};
constexpr float kLow = 4.0f, kHigh = 9.0f;  // of E: white noise alone exceeds 4 in one of a thousand pixels
constexpr float kGain = 1.6f, kPast = 2.0f;
constexpr int kSampled[kLevels] = {16, 8, 4, 2};  // every so many pixels of a level speak for its noise

// Means of 5x5 binomial pixels of one row and what is left of it; `line` has room for two pixels on either side.
FLUORONAV_LOOP
static void blur5_row(const Padded& in, int r, float* __restrict line, float* __restrict out,
                      float* __restrict detail) {
    const float *a = in.row(r - 2), *b = in.row(r - 1), *c = in.row(r), *d = in.row(r + 1), *e = in.row(r + 2);
    for (int x = -2; x < in.cols + 2; ++x)
        line[x] = 0.0625f * (a[x] + e[x]) + 0.25f * (b[x] + d[x]) + 0.375f * c[x];
    for (int x = 0; x < in.cols; ++x) {
        out[x] = 0.0625f * (line[x - 2] + line[x + 2]) + 0.25f * (line[x - 1] + line[x + 1]) + 0.375f * line[x];
        detail[x] = c[x] - out[x];
    }
}

// Extremes of 2x2 pixels of two rows (the last column alone where their number is odd); t and l are scratch.
FLUORONAV_LOOP
static void extremes_row(const float* __restrict t0, const float* __restrict t1, const float* __restrict l0,
                         const float* __restrict l1, int cols, float* __restrict t, float* __restrict l,
                         float* __restrict top, float* __restrict low) {
    for (int x = 0; x < cols; ++x) {
        t[x] = t0[x] > t1[x] ? t0[x] : t1[x];
        l[x] = l0[x] < l1[x] ? l0[x] : l1[x];
    }
    const int half = cols / 2;
    for (int x = 0; x < half; ++x) {
        top[x] = t[2 * x] > t[2 * x + 1] ? t[2 * x] : t[2 * x + 1];
        low[x] = l[2 * x] < l[2 * x + 1] ? l[2 * x] : l[2 * x + 1];
    }
    if (cols % 2) top[half] = t[cols - 1], low[half] = l[cols - 1];
}

// Every second pixel of the mean, and the mean variance of 2x2 pixels; t is scratch.
FLUORONAV_LOOP
static void halve_row(const float* __restrict mean, const float* __restrict v0, const float* __restrict v1, int cols,
                      float* __restrict t, float* __restrict g, float* __restrict v) {
    for (int x = 0; x < cols; ++x) t[x] = v0[x] + v1[x];
    const int half = cols / 2;
    for (int x = 0; x < half; ++x) {
        g[x] = mean[2 * x];
        v[x] = 0.25f * (t[2 * x] + t[2 * x + 1]);
    }
    if (cols % 2) g[half] = mean[cols - 1], v[half] = 0.5f * t[cols - 1];
}

// Row r / 2 of the next level, from the mean of row r (even) of this one; t and l are scratch.
static void halve_level(const Level& at, Level& next, int level, int r, const float* mean, float* t, float* l) {
    const int cols = at.g.cols, other = std::min(r + 1, at.g.rows - 1);
    float *g = next.g.row(r / 2), *v = next.own.data() + std::size_t(r / 2) * next.g.cols;
    halve_row(mean, at.variance(r), at.variance(other), cols, t, g, v);
    if (level >= kRanged) return;
    const Padded &top = level ? at.top : at.g, &low = level ? at.low : at.g;
    extremes_row(top.row(r), top.row(other), low.row(r), low.row(other), cols, t, l, next.top.row(r / 2),
                 next.low.row(r / 2));
}

// What y + A may reach in one row: the range of 7x7 pixels, and past it on the side of the minority. Scratch rows have
// kPad pixels on either side.
FLUORONAV_LOOP
static void range_row(const Padded& top, const Padded& low, const Padded& g, int r, float* __restrict t,
                      float* __restrict l, float* __restrict s, float* __restrict out_top, float* __restrict out_low) {
    std::copy(top.row(r) - 3, top.row(r) + g.cols + 3, t - 3);
    std::copy(low.row(r) - 3, low.row(r) + g.cols + 3, l - 3);
    std::copy(g.row(r) - 3, g.row(r) + g.cols + 3, s - 3);
    for (int i = -3; i <= 3; ++i) {
        if (i == 0) continue;
        const float *a = top.row(r + i), *b = low.row(r + i), *c = g.row(r + i);
        for (int x = -3; x < g.cols + 3; ++x) {
            t[x] = a[x] > t[x] ? a[x] : t[x];
            l[x] = b[x] < l[x] ? b[x] : l[x];
            s[x] += c[x];
        }
    }
    for (int x = 0; x < g.cols; ++x) {
        float hi = t[x - 3], lo = l[x - 3], sum = s[x - 3];
        for (int k = -2; k <= 3; ++k) {
            hi = t[x + k] > hi ? t[x + k] : hi;
            lo = l[x + k] < lo ? l[x + k] : lo;
            sum += s[x + k];
        }
        // the mean is of soft pixels, which reach a little further than the extremes: never past them twice
        const float skew = kPast * (hi + lo - sum * (2.0f / 49)), span = hi - lo;
        out_top[x] = hi + (skew > 0 ? (skew < span ? skew : span) : 0);
        out_low[x] = lo + (skew < 0 ? (skew > -span ? skew : -span) : 0);
    }
}

// The same for a level, in place.
static void ranges(Level& at) {
    static thread_local Padded own_top, own_low;
    Padded &top = own_top, &low = own_low;
    std::swap(top, at.top), std::swap(low, at.low);
    at.top.shape(at.g.rows, at.g.cols), at.low.shape(at.g.rows, at.g.cols);
    top.repeat_borders(), low.repeat_borders();
    each_row(at.g.rows, [&](int r0, int r1) {
        const int width = at.g.cols + 2 * kPad;
        static thread_local std::vector<float> own;
        own.resize(std::size_t(3) * width);
        float* line = own.data() + kPad;
        for (int r = r0; r < r1; ++r)
            range_row(top, low, at.g, r, line, line + width, line + 2 * width, at.top.row(r), at.low.row(r));
    });
    at.top.repeat_borders(), at.low.repeat_borders();
}

// E of one row before its floor, 1 where there is white noise alone; of the detail in the rows above, of and below it.
FLUORONAV_LOOP
static void energy_row(const float* a, const float* b, const float* c, const float* __restrict v, int cols, float white,
                       float* __restrict line, float* __restrict out) {
    for (int x = -1; x < cols + 1; ++x) line[x] = 0.25f * (a[x] * a[x] + c[x] * c[x]) + 0.5f * (b[x] * b[x]);
    for (int x = 0; x < cols; ++x) out[x] = (0.25f * (line[x - 1] + line[x + 1]) + 0.5f * line[x]) / (white * v[x]);
}

FLUORONAV_LOOP
static void raise_row(const float* __restrict d, const float* __restrict energy, int n, float gain, float inverse,
                      float* __restrict add) {
    for (int x = 0; x < n; ++x) add[x] = gain * smoothstep(energy[x] * inverse, kLow, 1 / (kHigh - kLow)) * d[x];
}

// What is added to the rows r0 (a multiple of 4) to r1 of a level, samples of their E, and the rows of the next level that come
// from them. Details live in a ring: the rows just outside are made again, so that no band waits for another.
static void walk_level(Level& at, Level& next, int level, float gain, float floor, float* energies, int r0, int r1) {
    const int rows = at.g.rows, cols = at.g.cols, every = kSampled[level], sampled = (cols + every - 1) / every;
    Scratch scratch;
    Ring<float> detail(scratch, 4, rows, cols);
    float *line = scratch.take<float>(cols + 2 * kPad) + kPad, *mean = scratch.take<float>(cols);
    float *t = scratch.take<float>(cols), *l = scratch.take<float>(cols), *energy = scratch.take<float>(cols);
    float* sum = scratch.take<float>(cols);
    for (int r = std::max(0, r0 - 1); r <= r1; ++r) {
        if (r < rows) {
            blur5_row(at.g, r, line, mean, detail.row(r));
            detail.repeat(r);
            if (r >= r0 && r < r1 && r % 2 == 0) halve_level(at, next, level, r, mean, t, l);
        }
        const int e = r - 1;
        if (e < r0) continue;
        energy_row(detail.at(e - 1), detail.at(e), detail.at(e + 1), at.variance(e), cols, kWhite[level], line, energy);
        if (e % every == 0)
            for (int x = 0; x < sampled; ++x) energies[std::size_t(e / every) * sampled + x] = energy[x * every];
        raise_row(detail.at(e), energy, cols, gain, 1 / floor, at.add.row(e));
        if (at.told) tell_row(at, level, e, energy, detail.at(e), sum);
    }
}

FLUORONAV_LOOP
static void plus(const float* __restrict a, int n, float* __restrict out) {
    for (int x = 0; x < n; ++x) out[x] += a[x];
}

// Each value twice.
FLUORONAV_LOOP
static void double_row(const float* __restrict in, int cols, float* __restrict out) {
    const int half = cols / 2;
    for (int x = 0; x < half; ++x) out[2 * x] = in[x], out[2 * x + 1] = in[x];
    if (cols % 2) out[cols - 1] = in[half];
}

FLUORONAV_LOOP
static void finish_row(const float* __restrict y, const float* __restrict a, const float* __restrict more,
                       const float* __restrict wide, const float* __restrict tops, const float* __restrict lows, int n,
                       float strength, float* __restrict out) {
    for (int x = 0; x < n; ++x) {
        const float most = strength * (y[x] - wide[x]), sum = a[x] + more[x];
        const float up = tops[x] - y[x], down = lows[x] - y[x];
        float top = most > 0 ? most : 0, low = most < 0 ? most : 0;
        top = top > up ? (up > 0 ? up : 0) : top;
        low = low < down ? (down < 0 ? down : 0) : low;
        const float bounded = sum > top ? top : sum;
        out[x] = y[x] + (bounded < low ? low : bounded);
    }
}

static float quartile(std::vector<float>& values) {
    if (values.empty()) return 1;
    const auto at = values.begin() + std::ptrdiff_t(values.size() / 4);
    std::nth_element(values.begin(), at, values.end());
    return *at;
}

// Fills `levels` (kept by the calling thread) and `quartiles` (of E by level).
static void divided(const float* y, const float* v, const float* floors, float strength, std::vector<Level>& levels,
                    float* quartiles) {
    load(y, levels[0].g);
    levels[0].v = v;
    for (int l = 0; l < kLevels; ++l) {
        Level &at = levels[l], &next = levels[l + 1];
        const int every = kSampled[l], across = (at.g.cols + every - 1) / every;
        static thread_local std::vector<float> own;
        std::vector<float>& energies = own;
        energies.assign(std::size_t((at.g.rows + every - 1) / every) * across, 0);
        each_row((at.g.rows + 3) / 4, [&](int r0, int r1) {
            walk_level(at, next, l, kGain * strength, floors[l], energies.data(), 4 * r0, std::min(4 * r1, at.g.rows));
        }, 8);
        next.g.repeat_borders();
        quartiles[l] = quartile(energies);
    }
}

// What the levels add, put together and bounded.
static void raised(std::vector<Level>& levels, float strength, float* out) {
    ranges(levels[kRanged]);
    levels[kLevels].wide = levels[kLevels].g;
    for (int l = kLevels - 1; l > 0; --l) {
        Level &at = levels[l], &coarse = levels[l + 1];
        const int cols = at.g.cols;
        each_row(at.g.rows, [&](int r0, int r1) {
            static thread_local std::vector<float> own;
            own.resize(std::size_t(2) * (cols + 2 * kPad));
            float *line = own.data(), *more = line + cols + 2 * kPad;
            for (int r = r0; r < r1; ++r) {
                expand_row(coarse.wide, r, cols, line, at.wide.row(r));
                if (l < kRanged) {
                    expand_row(coarse.top, r, cols, line, at.top.row(r));
                    expand_row(coarse.low, r, cols, line, at.low.row(r));
                }
                if (at.told) times(at.gain.row(r), cols, at.add.row(r));
                if (l == kLevels - 1) continue;
                expand_row(coarse.add, r, cols, line, more);
                plus(more, cols, at.add.row(r));
            }
        });
        at.add.repeat_borders();
        at.wide.repeat_borders();
    }
    const int cols = levels[0].g.cols;
    each_row(levels[0].g.rows, [&](int r0, int r1) {
        static thread_local std::vector<float> own;
        const int width = cols + 2 * kPad;
        own.resize(std::size_t(5) * width);
        float *line = own.data(), *more = line + width, *wide = more + width, *top = wide + width, *low = top + width;
        for (int r = r0; r < r1; ++r) {
            if (levels[0].told) {
                expand_row(levels[0].gain, r, cols, line, more);
                times(more, cols, levels[0].add.row(r));
            }
            expand_row(levels[1].add, r, cols, line, more);
            expand_row(levels[1].wide, r, cols, line, wide);
            double_row(levels[1].top.row(r / 2), cols, top);
            double_row(levels[1].low.row(r / 2), cols, low);
            finish_row(levels[0].g.row(r), levels[0].add.row(r), more, wide, top, low, cols, strength,
                       out + std::size_t(r) * cols);
        }
    });
}

static nb::tuple contrast(In y, In v, Table floors, float strength, std::optional<nb::callable> choose) {
    int rows = int(y.shape(0)), cols = int(y.shape(1));
    if (floors.shape(0) != kLevels) throw nb::value_error("floors: one number a level");
    Out out = make(rows, cols);
    float quartiles[kLevels];
    static thread_local std::vector<Level> own;
    std::vector<Level>& levels = own;  // thread_local: the team must see the caller's
    {
        nb::gil_scoped_release free;
        levels.resize(kLevels + 1);
        for (Level& level : levels) {
            level.own.resize(&level == levels.data() ? 0 : std::size_t(rows) * cols);
            level.v = level.own.data();
            level.told = choose.has_value();
            for (Padded* p : {&level.g, &level.add, &level.wide, &level.top, &level.low}) p->shape(rows, cols);
            rows = (rows + 1) / 2, cols = (cols + 1) / 2;
        }
        for (int l = 0; choose && l < kLevels; ++l) {
            const Padded& grid = levels[std::max(l, kRanged)].g;
            levels[l].cells.shape(grid.rows, grid.cols);
            if (l >= kRanged) levels[l].detail.shape(grid.rows, grid.cols);
        }
        divided(y.data(), v.data(), floors.data(), strength, levels, quartiles);
    }
    if (choose) {
        const Padded &fine = levels[kRanged].g, &coarse = levels[kRanged + 1].g;
        Out3 planes = make3(kRanged + 5, fine.rows, fine.cols), small = make3(2, coarse.rows, coarse.cols);
        tell(levels, planes.data(), small.data());
        const In3 gains = nb::cast<In3>((*choose)(planes, small));
        if (gains.shape(0) != kLevels || int(gains.shape(1)) != fine.rows || int(gains.shape(2)) != fine.cols)
            throw nb::value_error("gains: one a level and 4 x 4 pixels");
        gains_on(levels, gains.data());
    }
    {
        nb::gil_scoped_release free;
        raised(levels, strength, out.data());
    }
    return nb::make_tuple(out, quartiles[0], quartiles[1], quartiles[2], quartiles[3]);
}

void bind_contrast(nb::module_& module) {
    module.def("contrast", &contrast, "y"_a, "v"_a, "floors"_a, "strength"_a, "choose"_a = nb::none());
}

}  // namespace fluoronav
