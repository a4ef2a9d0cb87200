// SPDX-License-Identifier: Apache-2.0
// The sheared renderer: rays on a grid of slopes that is parallel to the volume's axes.
//
// Where a grid's row of rays meets a plane, y is the same for all of them and x goes in equal steps that are the same
// for all rows. So each row of voxels is resampled once in x (places and weights are made once a plane and serve all
// its rows), and each row of rays mixes two such rows. All of it in 16-bit words: 12 bits of volume, weights of 15.
// Eight planes are summed before anything becomes a float; 8 * 4095 just fits. Included like direct.hpp, after the
// 16-bit vector W, `resampled`, and its WINDOW, RUN and encoding.
//
// Bound by arithmetic: some 24 instructions for W::LANES rays and a plane, 6 of them the change to floats once in
// eight planes; the volume is read once, row after row.

struct Columns {  // where the grid's columns meet one plane
    std::int32_t* base;   // first word of each run's window
    std::int16_t *index, *weight;
    bool narrow;
};

struct Rows2 {  // one plane's two rows of voxels, resampled: row and row + 1
    int row;
    std::int16_t *value[2], *difference[2];
};

struct Plane {
    Columns columns;
    Rows2 rows;
    double y0, dy;       // y = y0 + j dy
    std::int16_t away;   // (k - middle of the group) / 4 in 1/32768
};

constexpr int ONE = 32768, AHEAD = 1;

static inline float clamped(float x, float low, float high) { return x < low ? low : x > high ? high : x; }

static void place_columns(const Sheared& s, double h, int i0, int i1, Columns& out) {
    const float first = static_cast<float>(s.view.source[0] + h * s.grid.mx0), step = static_cast<float>(h * s.grid.dx);
    const float left = -1.5f, right = static_cast<float>(s.volume.nx) + 0.5f;
    for (int i = i0; i < i1; ++i) {
        const float x = clamped(first + step * static_cast<float>(i), left, right) + EDGE;
        const int at = static_cast<int>(x);
        out.index[i] = static_cast<std::int16_t>(at);
        const int weight = static_cast<int>((x - static_cast<float>(at)) * ONE);
        out.weight[i] = static_cast<std::int16_t>(weight < ONE ? weight : ONE - 1);
    }
    for (int i = i0; i < i1; i += RUN) {
        const int last = s.volume.pitch - WINDOW, base = out.index[i] < last ? out.index[i] : last;
        out.base[i / RUN] = base;
        for (int n = i; n < i + RUN; ++n) out.index[n] = static_cast<std::int16_t>(encoded(out.index[n] - base));
    }
    // all taps of a run within its first half window (never where a window was moved to the left)
    out.narrow = step * (RUN - 1) + 2 < WINDOW / 2 && out.base[(i1 - 1) / RUN] < s.volume.pitch - WINDOW;
}

// ahead: words to the row that will be wanted next
static void resample(const std::int16_t* row, std::ptrdiff_t ahead, const Columns& c, int i0, int i1,
                     std::int16_t* value, std::int16_t* difference) {
    if (c.narrow) {
        for (int i = i0; i < i1; i += W::LANES) {
            W v, d;
            __builtin_prefetch(row + c.base[i / RUN] + ahead);
            resampled(row, c.base + i / RUN, c.index + i, c.weight + i, true, v, d);
            store(value + i, v), store(difference + i, d);
        }
    } else {
        for (int i = i0; i < i1; i += W::LANES) {
            W v, d;
            __builtin_prefetch(row + c.base[i / RUN] + ahead);
            resampled(row, c.base + i / RUN, c.index + i, c.weight + i, false, v, d);
            store(value + i, v), store(difference + i, d);
        }
    }
}

static void fetch_row(const Sheared& s, const std::int16_t* group, int plane, int row, int slot, int i0, int i1,
                      Plane& p) {
    if (row < 0 || row >= s.volume.ny) {
        for (int i = i0; i < i1; ++i) p.rows.value[slot][i] = p.rows.difference[slot][i] = 0;
        return;
    }
    const std::ptrdiff_t at = (static_cast<std::ptrdiff_t>(row) * GROUP + plane) * s.volume.pitch;
    resample(group + at, AHEAD * GROUP * s.volume.pitch, p.columns, i0, i1, p.rows.value[slot], p.rows.difference[slot]);
}

// Let the plane's two rows be those around y; returns the weight of the second.
static inline int turn_to(const Sheared& s, const std::int16_t* group, int plane, double y, int i0, int i1, Plane& p) {
    const double bottom = s.volume.ny + 0.5;
    y = y < -1.5 ? -1.5 : y > bottom ? bottom : y;
    const int row = static_cast<int>(y + EDGE) - EDGE;
    if (row != p.rows.row) {
        if (row == p.rows.row + 1) {
            std::int16_t *v = p.rows.value[0], *d = p.rows.difference[0];
            p.rows.value[0] = p.rows.value[1], p.rows.difference[0] = p.rows.difference[1];
            p.rows.value[1] = v, p.rows.difference[1] = d;
        } else {
            fetch_row(s, group, plane, row, 0, i0, i1, p);
        }
        fetch_row(s, group, plane, row + 1, 1, i0, i1, p);
        p.rows.row = row;
    }
    const int weight = static_cast<int>((y - row) * ONE);
    return weight < ONE ? weight : ONE - 1;
}

static inline void add_to(float* p, F a) { store(p, load(p) + a); }
static inline void add_to(float* p, F a, F b) { store(p, fma(a, b, load(p))); }

// One row of rays through up to eight planes.
template <bool GRADIENT>
static void mix(const Plane* planes, const int* weights, int n, int i0, int i1, float h, float* sums, std::size_t apart) {
    constexpr int FLOATS = W::LANES / F::W;
    for (int i = i0; i < i1; i += W::LANES) {
        W s = words(0), x = s, xk = s, y = s, yk = s;
        for (int p = 0; p < n; ++p) {
            const Rows2& rows = planes[p].rows;
            const W weight = words(weights[p]), v0 = load(rows.value[0] + i), dy = load(rows.value[1] + i) - v0;
            s = s + (v0 + times(dy, weight));
            if (GRADIENT) {
                const W away = words(planes[p].away), d0 = load(rows.difference[0] + i);
                const W dx = d0 + times(load(rows.difference[1] + i) - d0, weight);
                x = x + dx, xk = xk + times(dx, away);
                y = y + dy, yk = yk + times(dy, away);
            }
        }
        F fs[FLOATS], fx[FLOATS], fxk[FLOATS], fy[FLOATS], fyk[FLOATS];
        to_floats(s, fs);
        for (int f = 0; f < FLOATS; ++f) add_to(sums + i + f * F::W, fs[f]);
        if (!GRADIENT) continue;
        to_floats(x, fx), to_floats(xk, fxk), to_floats(y, fy), to_floats(yk, fyk);
        for (int f = 0; f < FLOATS; ++f) {
            float* to = sums + i + f * F::W;
            add_to(to + apart, fx[f]), add_to(to + 2 * apart, fma(fx[f], F(h), fxk[f] * F(4.f)));
            add_to(to + 3 * apart, fy[f]), add_to(to + 4 * apart, fma(fy[f], F(h), fyk[f] * F(4.f)));
        }
    }
}

// First and one past the last index of a grid's line of n rays (place = first + i * step, step > 0, at either end of
// the group) that may come within one voxel of low .. high.
static void touched(double first_a, double step_a, double first_b, double step_b, double low, double high, int n,
                    int& from, int& to) {
    const double a = (low - 1 - first_a) / step_a, b = (low - 1 - first_b) / step_b;
    const double c = (high + 1 - first_a) / step_a, d = (high + 1 - first_b) / step_b;
    const double begin = a < b ? a : b, end = c > d ? c : d;
    from = begin < 0 ? 0 : begin > n ? n : static_cast<int>(begin);
    to = end < 0 ? 0 : end > n - 1 ? n : static_cast<int>(end) + 1;
}

template <bool GRADIENT> static void shear_rows(const Sheared& s, int row0, int row1, void* scratch) {
    const Grid& g = s.grid;
    const std::size_t apart = static_cast<std::size_t>(g.h) * g.pitch;
    for (int q = 0; q < (GRADIENT ? 5 : 1); ++q)
        __builtin_memset(s.sums + q * apart + static_cast<std::size_t>(row0) * g.pitch, 0,
                         static_cast<std::size_t>(row1 - row0) * g.pitch * sizeof(float));
    Plane planes[GROUP];
    std::int16_t* words_left = static_cast<std::int16_t*>(scratch);
    const auto take = [&](std::size_t n) { std::int16_t* p = words_left; words_left += n; return p; };
    for (Plane& p : planes) {
        p.columns.index = take(g.pitch), p.columns.weight = take(g.pitch);
        for (int slot = 0; slot < 2; ++slot) p.rows.value[slot] = take(g.pitch), p.rows.difference[slot] = take(g.pitch);
        p.columns.base = reinterpret_cast<std::int32_t*>(take((g.pitch / RUN * 2 + 31) / 32 * 32));
    }
    const double sz = s.view.source[2];
    for (int k = 0; k < s.volume.nz; k += GROUP) {
        const std::int32_t* box = s.volume.boxes + 4 * (k / GROUP);
        if (box[0] > box[1]) continue;
        const int n = s.volume.nz - k < GROUP ? s.volume.nz - k : GROUP;
        const double ha = k - sz, hb = k + n - 1 - sz;
        int i0, i1, j0, j1;
        touched(s.view.source[0] + ha * g.mx0, ha * g.dx, s.view.source[0] + hb * g.mx0, hb * g.dx, box[0], box[1], g.w, i0, i1);
        touched(s.view.source[1] + ha * g.my0, ha * g.dy, s.view.source[1] + hb * g.my0, hb * g.dy, box[2], box[3], g.h, j0, j1);
        i0 = i0 / 32 * 32, i1 = (i1 + 31) / 32 * 32;
        j0 = j0 < row0 ? row0 : j0, j1 = j1 > row1 ? row1 : j1;
        if (i0 >= i1 || j0 >= j1) continue;
        const std::int16_t* group = s.volume.data + static_cast<std::ptrdiff_t>(k) * s.volume.ny * s.volume.pitch;
        for (int p = 0; p < n; ++p) {
            const double h = k + p - sz;
            place_columns(s, h, i0, i1, planes[p].columns);
            planes[p].rows.row = -100;
            planes[p].y0 = s.view.source[1] + h * g.my0, planes[p].dy = h * g.dy;
            planes[p].away = static_cast<std::int16_t>((p - 3.5) / 4 * ONE);
        }
        for (int j = j0; j < j1; ++j) {
            int weights[GROUP];
            for (int p = 0; p < n; ++p) weights[p] = turn_to(s, group, p, planes[p].y0 + j * planes[p].dy, i0, i1, planes[p]);
            mix<GRADIENT>(planes, weights, n, i0, i1, static_cast<float>(k + 3.5 - sz),
                          s.sums + static_cast<std::size_t>(j) * g.pitch, apart);
        }
    }
}

static void shear(const Sheared& s, bool gradient, int row0, int row1, void* scratch) {
    if (gradient) shear_rows<true>(s, row0, row1, scratch);
    else shear_rows<false>(s, row0, row1, scratch);
    // five numbers of a cell side by side: the warp takes them together
    const Grid& g = s.grid;
    const std::size_t apart = static_cast<std::size_t>(g.h) * g.pitch;
    for (int j = row0; j < row1 && gradient; ++j) {
        const float* from = s.sums + static_cast<std::size_t>(j) * g.pitch;
        float* to = s.cells + static_cast<std::size_t>(j) * g.pitch * 8;
        for (int i = 0; i < g.w; ++i)
            for (int q = 0; q < 8; ++q) to[8 * i + q] = q < 5 ? from[i + q * apart] : 0;
    }
}
