// SPDX-License-Identifier: Apache-2.0
// The quick renderer: Joseph's method on voxels of one byte, a patch of neighbouring pixels at a time.
//
// The rays of a small patch meet a plane within a few voxels of each other. That window of voxels is one or two loads,
// and all taps of all rays come out of it by byte shuffles: no gathers, no grid between, every ray where it really runs.
// The volume lies in bricks: columns of rows of WIDTH bytes, one column every STRIDE voxels, so that each window is
// one or two contiguous pieces. Positions are 4.12 fixed point within the window, x in the low and y in the high half of 32 bits; they
// start afresh every CHUNK planes and step in between. Weights have 7 bits, x's sum to 127 and y's to 127: multiply-adds
// of integers, exact until CHUNK planes are over.
//
// One byte is enough for the picture, because its rounding errors are passed on from plane to plane and cancel along
// the rays (1e-4); it is not for differences of neighbours (10 %). So a second byte holds 1/64 of the first one's
// steps, and only the derivative reads it.
//
// Bound by arithmetic: some 22 instructions for sixteen rays and a plane with AVX-512 (14 without derivative), which is
// 14 cycles of the 23 that a plane takes at 256^3 on Zen 4; 4 more go into windows, and 5 are spent waiting for memory.
// Planes are taken CHUNK at a time, so that what a tile of patches reads stays in the second cache while the tile goes over
// it; meanwhile its next chunk is asked for, a piece a patch. Included like direct.hpp, after `run`, `Tally` and the shape
// of a patch.

constexpr float MARGIN = 1 / 256.f;  // voxels by which fixed and floating point may disagree

struct Cone {  // slopes of a patch's outermost rays, turned so that they belong to the distance |z - sz|
    float x0, x1, y0, y1;
};

static inline Cone cone_of(const View& view, float way, int u0, int v0, int nu, int nv) {
    Cone c{1e30f, -1e30f, 1e30f, -1e30f};
    for (int i = 0; i < 4; ++i) {
        const float u = static_cast<float>(u0 + (i & 1) * (nu - 1)), v = static_cast<float>(v0 + (i >> 1) * (nv - 1));
        const float over = way / (view.base[2] + u * view.du[2] + v * view.dv[2]);
        const float x = (view.base[0] + u * view.du[0] + v * view.dv[0]) * over;
        const float y = (view.base[1] + u * view.du[1] + v * view.dv[1]) * over;
        c.x0 = x < c.x0 ? x : c.x0, c.x1 = x > c.x1 ? x : c.x1;
        c.y0 = y < c.y0 ? y : c.y0, c.y1 = y > c.y1 ? y : c.y1;
    }
    return c;
}

// Distances h at which c0 + h c1 > 0.
static inline void where_positive(float c0, float c1, float& from, float& to) {
    if (c1 > 0) from = -c0 / c1 > from ? -c0 / c1 : from;
    else if (c1 < 0) to = -c0 / c1 < to ? -c0 / c1 : to;
    else if (c0 <= 0) to = -1;
}

// The planes that a patch meets, k0 .. k1 (none: k0 > k1).
static inline void planes_met(const Bricks& v, const View& view, const Cone& c, float way, int& k0, int& k1) {
    const float sz = view.source[2], last = static_cast<float>(v.nz - 1);
    float from = way > 0 ? -sz : sz - last, to = way > 0 ? last - sz : sz;
    where_positive(static_cast<float>(v.nx) - view.source[0], -c.x0, from, to);
    where_positive(view.source[0] + 1, c.x1, from, to);
    where_positive(static_cast<float>(v.ny) - view.source[1], -c.y0, from, to);
    where_positive(view.source[1] + 1, c.y1, from, to);
    k0 = 0, k1 = -1;
    if (from > to) return;
    const float a = way > 0 ? sz + from : sz - to, b = way > 0 ? sz + to : sz - from;
    k0 = static_cast<int>(a), k1 = static_cast<int>(b) + 1;  // a plane more at either end does no harm
    k0 = k0 < 0 ? 0 : k0, k1 = k1 > v.nz - 1 ? v.nz - 1 : k1;
}

struct alignas(64) Patch {
    float mx[F::W], my[F::W], s[F::W], x0[F::W], x1[F::W], y0[F::W], y1[F::W];
    Cone all, own[PARTS];
    int k0, k1;
    float spread_x, spread_y;  // widest differences of slopes within a part
    float steep_x, steep_y;  // largest slopes
};

// The largest size of what lies between a and b, a <= b.
static inline float largest(float a, float b) { return -a > b ? -a : b; }

static inline void begin(const Bricks& v, const View& view, float way, int u0, int row, Patch& p) {
    constexpr int NU = PATCH_W / PARTS;  // parts of a patch, side by side, have windows of their own
    p.all = cone_of(view, way, u0, row, PATCH_W, PATCH_H);
    planes_met(v, view, p.all, way, p.k0, p.k1);
    p.spread_x = p.spread_y = 0;
    p.steep_x = largest(p.all.x0, p.all.x1), p.steep_y = largest(p.all.y0, p.all.y1);
    for (int i = 0; i < PARTS; ++i) {
        p.own[i] = PARTS == 1 ? p.all : cone_of(view, way, u0 + i * NU, row, NU, PATCH_H);
        p.spread_x = p.own[i].x1 - p.own[i].x0 > p.spread_x ? p.own[i].x1 - p.own[i].x0 : p.spread_x;
        p.spread_y = p.own[i].y1 - p.own[i].y0 > p.spread_y ? p.own[i].y1 - p.own[i].y0 : p.spread_y;
    }
    const F u = lane_u() + F(static_cast<float>(u0)), w = lane_v() + F(static_cast<float>(row)), zero(0.f);
    F d[3] = {zero, zero, zero};
    for (int a = 0; a < 3; ++a) d[a] = fma(u, F(view.du[a]), fma(w, F(view.dv[a]), F(view.base[a])));
    const F over = F(1.f) / d[2];
    store(p.mx, d[0] * over), store(p.my, d[1] * over);
    store(p.s, zero), store(p.x0, zero), store(p.x1, zero), store(p.y0, zero), store(p.y1, zero);
}

// What a tile will read of the next chunk of planes, asked for a strip of a plane at a time, so that waiting is spread
// over the work on this chunk.
struct Ahead {
    Cone cone;
    int k, end, strips;       // the plane in hand, and where to stop; strips that are still to be asked for there
    std::ptrdiff_t at[2];     // where the strip in hand is to be read, in one or two blocks of rows,
    int lines[2];             // and how many lines there
};

static inline int within(int a, int most) { return a < 0 ? 0 : a > most ? most : a; }

static inline void enter(const Bricks& v, const View& view, float way, Ahead& a) {
    const float h = way * (static_cast<float>(a.k) - view.source[2]);
    const float x = view.source[0] + LEFT, y = view.source[1] + ABOVE;
    const int most_x = v.columns - 1 - WIDTH / STRIDE;
    const int column = within(static_cast<int>(x + h * a.cone.x0) >> STRIDE_BITS, most_x);
    const int top = within(static_cast<int>(y + h * a.cone.y0), v.rows - 1), bottom = within(static_cast<int>(y + h * a.cone.y1), v.rows - 1);
    a.strips = within((static_cast<int>(x + h * a.cone.x1) >> STRIDE_BITS) + SPANS - 1, most_x) - column + 1;
    a.lines[1] = 0;
    for (int i = 0, b = top / APART; i < 2 && b <= bottom / APART; ++i, ++b) {
        const int from = top > b * APART ? top - b * APART : 0, to = bottom < b * APART + APART - 1 ? bottom - b * APART : APART - 1;
        a.at[i] = (static_cast<std::ptrdiff_t>(b) * v.columns + column) * v.strip + a.k * (TALL * WIDTH) + from * WIDTH;
        a.lines[i] = ((to - from + 8) * WIDTH + 63) / 64;  // a window is at most 8 rows
    }
}

// Planes k .. k + CHUNK - 1, as far as before `end`.
static inline Ahead ahead_of(const Bricks& v, const View& view, float way, const Cone& cone, int k, int end) {
    Ahead a{cone, k, k + CHUNK < end ? k + CHUNK : end, 0, {0, 0}, {0, 0}};
    enter(v, view, way, a);
    return a;
}

template <bool GRADIENT> static inline void ask_for(const Bricks& v, const View& view, float way, Ahead& a, int strips) {
    for (; strips > 0 && a.k < a.end; --strips) {
        for (int i = 0; i < 2; a.at[i++] += v.strip)
            for (int line = 0; line < a.lines[i]; ++line) {
                ask(v.data + a.at[i] + 64 * line);
                if (GRADIENT) ask(v.fine + a.at[i] + 64 * line);
            }
        if (--a.strips <= 0 && ++a.k < a.end) enter(v, view, way, a);
    }
}

// Where the windows of CHUNK planes from k on begin, for one part of a patch; one for GROUP planes.
template <int GROUP, bool INSIDE>
static inline void windows(const Bricks& v, float x, float y, float dx, float dy, int k, int part, Windows& out) {
    const int most_x = v.columns - 1 - WIDTH / STRIDE, most_y = v.rows - 1, at = k * (TALL * WIDTH), block = v.columns * v.strip;
    for (int p = 0; p < CHUNK / GROUP; ++p) {
        const float t = static_cast<float>(p * GROUP);
        int column = static_cast<int>(x + t * dx) >> STRIDE_BITS, row = static_cast<int>(y + t * dy);
        if (!INSIDE) {
            column = column < 0 ? 0 : column > most_x ? most_x : column;
            row = row < 0 ? 0 : row > most_y ? most_y : row;
        }
        out.offset[part][p] = at + p * (GROUP * TALL * WIDTH) + column * v.strip + static_cast<int>(static_cast<unsigned>(row) / APART) * block + (row & (APART - 1)) * WIDTH;
        out.origin[part][p] = (column << (STRIDE_BITS + 12) & 0xf000) + static_cast<int>(static_cast<unsigned>(row) << 28);
    }
}

template <int GROUP>
static inline void windows(const Bricks& v, const View& view, const Cone& c, float way, int k, int planes, int part, Windows& out) {
    const float h = way * (static_cast<float>(k) - view.source[2]), dx = way * c.x0, dy = way * c.y0;
    float x = view.source[0] + h * c.x0 + (LEFT - MARGIN), y = view.source[1] + h * c.y0 + (ABOVE - MARGIN);
    x += dx < 0 ? (GROUP - 1) * dx : 0, y += dy < 0 ? (GROUP - 1) * dy : 0;
    const float t = static_cast<float>(planes - 1), x1 = x + t * dx, y1 = y + t * dy;
    const float right = static_cast<float>((v.columns - 1 - WIDTH / STRIDE) * STRIDE), bottom = static_cast<float>(v.rows - 1);
    if (x > 0 && x1 > 0 && y > 0 && y1 > 0 && x < right && x1 < right && y < bottom && y1 < bottom) windows<GROUP, true>(v, x, y, dx, dy, k, part, out);
    else windows<GROUP, false>(v, x, y, dx, dy, k, part, out);
}

// The planes of one chunk. Sums of h df/dx come from the sums' own growth: with R the total of what has been summed
// after each of n planes, sum_p p X_p = n X - R.
template <bool GRADIENT, bool WIDE>
static inline void summed(const Bricks& v, const Windows& at, int planes, Steps& steps, float h, Patch& patch) {
    Tally t, r;
    clear(t), clear(r);
    int p = 0;
    for (; p + STEP <= planes; p += STEP) run<GRADIENT, WIDE, true>(v, at, p, p + STEP, steps, t, r);
    if (p < planes) run<GRADIENT, WIDE, false>(v, at, p, planes, steps, t, r);
    store(patch.s, load(patch.s) + to_float(t.s));
    if (!GRADIENT) return;
    const F x = slope_x(t), y = slope_y(t), begun(h + static_cast<float>(planes));
    store(patch.x0, load(patch.x0) + x), store(patch.x1, fma(begun, x, load(patch.x1) - slope_x(r)));
    store(patch.y0, load(patch.y0) + y), store(patch.y1, fma(begun, y, load(patch.y1) - slope_y(r)));
}

// Planes from .. to - 1 of a patch, and where its windows lie there.
struct Stretch {
    Windows at;
    int from, to;
    bool narrow;
};

static inline void prepare(const Bricks& v, const View& view, float way, int k, const Patch& p, Stretch& s) {
    s.from = k > p.k0 ? k : p.k0, s.to = k + CHUNK < p.k1 + 1 ? k + CHUNK : p.k1 + 1;
    if (s.from >= s.to) return;
    const float most = way * (static_cast<float>(way > 0 ? s.to - 1 : s.from) - view.source[2]);
    s.narrow = narrow(most * p.spread_x + 2 * MARGIN, most * p.spread_y + 2 * MARGIN, p.steep_x, p.steep_y);
    for (int i = 0; i < PARTS; ++i)
        if (SHARES && s.narrow) windows<STEP>(v, view, p.own[i], way, s.from, s.to - s.from, i, s.at);
        else windows<1>(v, view, p.own[i], way, s.from, s.to - s.from, i, s.at);
}

// One patch through one stretch.
template <bool GRADIENT> static inline void through(const Bricks& v, const View& view, const Stretch& s, Patch& p) {
    if (s.from >= s.to) return;
    const float h = static_cast<float>(s.from) - view.source[2];
    const F mx = load(p.mx), my = load(p.my);
    Steps steps = steps_of(fma(F(h), mx, F(view.source[0] + LEFT)), fma(F(h), my, F(view.source[1] + ABOVE)), mx, my);
    if (s.narrow) summed<GRADIENT, false>(v, s.at, s.to - s.from, steps, h, p);
    else summed<GRADIENT, true>(v, s.at, s.to - s.from, steps, h, p);
}

template <bool GRADIENT>
static void tile_of(const Bricks& v, const View& view, const Out& out, int row0, int row1, int u0, int u1, float* scratch) {
    const float way = view.source[2] < 0 ? 1.f : -1.f;
    const int across = (u1 - u0 + PATCH_W - 1) / PATCH_W, down = (row1 - row0 + PATCH_H - 1) / PATCH_H;
    Patch* const all = reinterpret_cast<Patch*>(scratch);
    int k0 = v.nz, k1 = -1;
    for (int i = 0; i < down * across; ++i) {
        // patches below each other come after each other: their windows share lines
        begin(v, view, way, u0 + i / down * PATCH_W, row0 + i % down * PATCH_H, all[i]);
        if (all[i].k0 > all[i].k1) continue;
        k0 = all[i].k0 < k0 ? all[i].k0 : k0, k1 = all[i].k1 > k1 ? all[i].k1 : k1;
    }
    Stretch stretch[2];  // the next patch's windows are found before this one's are read: nothing waits for them
    // after the last chunk comes the next tile's first one
    const Cone here = cone_of(view, way, u0, row0, u1 - u0, row1 - row0), beyond = cone_of(view, way, u1, row0, u1 - u0, row1 - row0);
    for (int k = k0; k <= k1; k += CHUNK) {
        prepare(v, view, way, k, all[0], stretch[0]);
        const bool more = k + CHUNK <= k1;
        Ahead ahead = ahead_of(v, view, way, more ? here : beyond, more ? k + CHUNK : k0, more || u1 < view.w ? k1 + 1 : k0);
        const int share = ((ahead.strips + 1) * CHUNK + down * across - 1) / (down * across);
        for (int i = 0; i < down * across; ++i) {
            ask_for<GRADIENT>(v, view, way, ahead, share);
            if (i + 1 < down * across) prepare(v, view, way, k, all[i + 1], stretch[(i + 1) & 1]);
            through<GRADIENT>(v, view, stretch[i & 1], all[i]);
        }
    }
    const F scale(v.unit / (127 * 127)), slope(v.unit / (127 * FINE));
    float* const rows = scratch + static_cast<std::size_t>(down) * across * (sizeof(Patch) / sizeof(float));
    const int pitch = across * PATCH_W;
    const std::ptrdiff_t apart = static_cast<std::ptrdiff_t>(pitch) * PATCH_H;
    for (int j = 0; j < down; ++j) {
        for (int i = 0; i < across; ++i) {
            const Patch& p = all[i * down + j];
            float* to = rows + i * PATCH_W;
            put(to, pitch, load(p.s) * scale);
            if (!GRADIENT) continue;
            put(to + apart, pitch, load(p.x0) * slope), put(to + 2 * apart, pitch, load(p.x1) * slope);
            put(to + 3 * apart, pitch, load(p.y0) * slope), put(to + 4 * apart, pitch, load(p.y1) * slope);
        }
        for (int r = 0; r < PATCH_H && row0 + j * PATCH_H + r < row1; ++r) {
            const float* s = rows + static_cast<std::ptrdiff_t>(r) * pitch;
            write_row(view, out, row0 + j * PATCH_H + r, u0, u1 - u0, s, s + apart, s + 2 * apart, s + 3 * apart, s + 4 * apart);
        }
    }
}

static void patches(const Bricks& v, const View& view, const Out& out, int row0, int row1, float* scratch) {
    for (int u = 0; u < view.w; u += TILE) {
        const int end = u + TILE < view.w ? u + TILE : view.w;
        if (out.jacobian) tile_of<true>(v, view, out, row0, row1, u, end, scratch);
        else tile_of<false>(v, view, out, row0, row1, u, end, scratch);
    }
}
