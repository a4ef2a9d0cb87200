// SPDX-License-Identifier: Apache-2.0
// Plain C++: eight lanes that any compiler turns into what it has.
#include "path.hpp"

namespace projector {
namespace {

struct F {
    static constexpr int W = 8;
    float v[W];
    F() = default;
    explicit F(float x) { for (float& a : v) a = x; }
};
struct I {
    std::int32_t v[F::W];
    I() = default;
    explicit I(std::int32_t x) { for (std::int32_t& a : v) a = x; }
};
struct M {
    bool v[F::W];
};
#define EACH for (int i = 0; i < F::W; ++i)
inline F operator+(F a, F b) { EACH a.v[i] += b.v[i]; return a; }
inline F operator-(F a, F b) { EACH a.v[i] -= b.v[i]; return a; }
inline F operator*(F a, F b) { EACH a.v[i] *= b.v[i]; return a; }
inline F operator/(F a, F b) { EACH a.v[i] /= b.v[i]; return a; }
inline I operator+(I a, I b) { EACH a.v[i] += b.v[i]; return a; }
inline I operator*(I a, I b) { EACH a.v[i] *= b.v[i]; return a; }
inline F fma(F a, F b, F c) { EACH a.v[i] = a.v[i] * b.v[i] + c.v[i]; return a; }
inline F min(F a, F b) { EACH a.v[i] = b.v[i] < a.v[i] ? b.v[i] : a.v[i]; return a; }
inline F max(F a, F b) { EACH a.v[i] = b.v[i] > a.v[i] ? b.v[i] : a.v[i]; return a; }
inline F clamp(F x, F low, F high) { return min(max(x, low), high); }
inline F sqrt(F a) { EACH a.v[i] = __builtin_sqrtf(a.v[i]); return a; }
inline F floor(F a) { EACH a.v[i] = static_cast<float>(static_cast<std::int32_t>(a.v[i])); return a; }  // positive
inline I to_int(F a) { I out; EACH out.v[i] = static_cast<std::int32_t>(a.v[i]); return out; }
inline F gather(const float* p, I at) { F out; EACH out.v[i] = p[at.v[i]]; return out; }
inline M between(F x, F low, F high) { M out; EACH out.v[i] = x.v[i] >= low.v[i] && x.v[i] <= high.v[i]; return out; }
inline F add_if(M m, F a, F b) { EACH a.v[i] += m.v[i] ? b.v[i] : 0.f; return a; }
inline F iota(float first) { F out; EACH out.v[i] = first + static_cast<float>(i); return out; }
inline void store(float* p, F a) { EACH p[i] = a.v[i]; }
inline F load(const float* p) { F a; EACH a.v[i] = p[i]; return a; }
#undef EACH

// A patch is 4 x 2 pixels; its window 16 x 9 voxels.
constexpr int PATCH_W = 4, PATCH_H = 2, PARTS = 1, WIDTH = 16, STRIDE = 8, STRIDE_BITS = 3, SPANS = 1;
constexpr int CHUNK = 32, STEP = 1;
inline F lane_u() { F a; for (int i = 0; i < 8; ++i) a.v[i] = static_cast<float>(i % 4); return a; }
inline F lane_v() { F a; for (int i = 0; i < 8; ++i) a.v[i] = static_cast<float>(i / 4); return a; }
inline void put(float* to, int pitch, F a) {
    for (int i = 0; i < 8; ++i) to[i / 4 * pitch + i % 4] = a.v[i];
}

// There is but one width of window, and each plane has its own.
constexpr bool SHARES = false;
inline bool narrow(float, float, float, float) { return true; }
struct Windows {
    std::int32_t offset[PARTS][CHUNK], origin[PARTS][CHUNK];
};
struct Steps {
    std::uint32_t at[8], by[8];
};
struct Eight {
    std::int32_t v[8];
};
struct Tally {
    Eight s, x, y;
};
inline void clear(Tally& t) { t = Tally{}; }
inline void add(Tally& a, const Tally& b) { for (int i = 0; i < 8; ++i) a.x.v[i] += b.x.v[i], a.y.v[i] += b.y.v[i]; }
inline F to_float(const Eight& a) { F f; for (int i = 0; i < 8; ++i) f.v[i] = static_cast<float>(a.v[i]); return f; }
inline F slope_x(const Tally& t) { return to_float(t.x); }
inline F slope_y(const Tally& t) { return to_float(t.y); }
inline std::uint32_t fixed(float a, float one) {
    return static_cast<std::uint32_t>(static_cast<std::int32_t>(a * one + (a < 0 ? -0.5f : 0.5f)));
}
inline Steps steps_of(F x, F y, F dx, F dy) {
    Steps out;
    for (int i = 0; i < 8; ++i) {
        out.at[i] = (fixed(y.v[i], 4096) << 16) + (fixed(x.v[i], 4096) & 0xffff);
        out.by[i] = (fixed(dy.v[i], 4096) << 16) + fixed(dx.v[i], 4096);
    }
    return out;
}

static inline void taps(const std::uint8_t* at, std::int16_t& a, std::int16_t& dx, std::int16_t& dy, std::int16_t& twist) {
    const int one = at[0], x = at[1] - one, y = at[WIDTH] - one;
    a = static_cast<std::int16_t>(one), dx = static_cast<std::int16_t>(x), dy = static_cast<std::int16_t>(y);
    twist = static_cast<std::int16_t>(at[WIDTH + 1] - at[WIDTH] - x);
}

// Have a line ready in the second cache.
static inline void ask(const std::uint8_t* at) {
#if defined(__GNUC__)
    __builtin_prefetch(at, 0, 2);
#else
    (void)at;
#endif
}

// Planes first .. last - 1 of the chunk. With a the first tap, dx and dy its differences to its neighbours and twist what the
// fourth has beyond a + dx + dy, bilinear is a + wx dx + wy dy + wx wy twist. Taps are fetched one by one; what the derivative
// does with them is 16 bits times 16 bits, of which every processor can do many at a time.
template <bool GRADIENT, bool, bool>
static inline void run(const Bricks& v, const Windows& w, int first, int last, Steps& steps, Tally& t, Tally& r) {
    for (int p = first; p < last; ++p) {
        const std::uint8_t *window = v.data + w.offset[0][p], *finer = v.fine + w.offset[0][p];
        const std::uint32_t origin = static_cast<std::uint32_t>(w.origin[0][p]);
        std::int16_t a[8], dx[8], dy[8], twist[8], none[8], ex[8], ey[8], fine_twist[8], wx[8], wy[8];
        for (int i = 0; i < 8; ++i) {
            const std::uint32_t from = steps.at[i] - origin, place = (from >> 28) * WIDTH + (from >> 12 & 15);
            steps.at[i] += steps.by[i];
            wx[i] = static_cast<std::int16_t>(from >> 5 & 127), wy[i] = static_cast<std::int16_t>(from >> 21 & 127);
            taps(window + place, a[i], dx[i], dy[i], twist[i]);
            if (GRADIENT) taps(finer + place, none[i], ex[i], ey[i], fine_twist[i]);
            else t.s.v[i] += 127 * (127 * a[i] + wx[i] * dx[i] + wy[i] * dy[i]) + wx[i] * wy[i] * twist[i];
        }
        if (!GRADIENT) continue;
        for (int i = 0; i < 8; ++i) {
            t.s.v[i] += 127 * (127 * a[i] + wx[i] * dx[i] + wy[i] * dy[i]) + static_cast<std::int16_t>(wx[i] * wy[i]) * twist[i];
            t.x.v[i] += 127 * (FINE * dx[i] + ex[i]) + FINE * (wy[i] * twist[i]) + wy[i] * fine_twist[i];
            t.y.v[i] += 127 * (FINE * dy[i] + ey[i]) + FINE * (wx[i] * twist[i]) + wx[i] * fine_twist[i];
        }
        add(r, t);
    }
}

#include "direct.hpp"
#include "finish.hpp"
#include "patch.hpp"

}  // namespace

const Path portable{"portable C++", direct, patches, {WIDTH, STRIDE}};

}  // namespace projector
