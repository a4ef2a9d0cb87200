// SPDX-License-Identifier: Apache-2.0
// AVX2 and FMA: eight lanes.
#include <immintrin.h>

#include "path.hpp"

namespace projector {
namespace {

struct F {
    static constexpr int W = 8;
    __m256 v;
    F() = default;
    F(__m256 x) : v(x) {}
    explicit F(float x) : v(_mm256_set1_ps(x)) {}
};
struct I {
    __m256i v;
    I(__m256i x) : v(x) {}
    explicit I(std::int32_t x) : v(_mm256_set1_epi32(x)) {}
};
struct M {
    __m256 v;
};
inline F operator+(F a, F b) { return _mm256_add_ps(a.v, b.v); }
inline F operator-(F a, F b) { return _mm256_sub_ps(a.v, b.v); }
inline F operator*(F a, F b) { return _mm256_mul_ps(a.v, b.v); }
inline F operator/(F a, F b) { return _mm256_div_ps(a.v, b.v); }
inline I operator+(I a, I b) { return _mm256_add_epi32(a.v, b.v); }
inline I operator*(I a, I b) { return _mm256_mullo_epi32(a.v, b.v); }
inline F fma(F a, F b, F c) { return _mm256_fmadd_ps(a.v, b.v, c.v); }
inline F min(F a, F b) { return _mm256_min_ps(a.v, b.v); }
inline F max(F a, F b) { return _mm256_max_ps(a.v, b.v); }
inline F clamp(F x, F low, F high) { return min(max(x, low), high); }
inline F sqrt(F a) { return _mm256_sqrt_ps(a.v); }
inline F floor(F a) { return _mm256_floor_ps(a.v); }
inline I to_int(F a) { return _mm256_cvttps_epi32(a.v); }
inline F gather(const float* p, I at) { return _mm256_i32gather_ps(p, at.v, 4); }
inline M between(F x, F low, F high) {
    return {_mm256_and_ps(_mm256_cmp_ps(x.v, low.v, _CMP_GE_OQ), _mm256_cmp_ps(x.v, high.v, _CMP_LE_OQ))};
}
inline F add_if(M m, F a, F b) { return _mm256_add_ps(a.v, _mm256_and_ps(m.v, b.v)); }
inline F iota(float first) { return _mm256_add_ps(_mm256_set1_ps(first), _mm256_setr_ps(0, 1, 2, 3, 4, 5, 6, 7)); }
inline void store(float* p, F a) { _mm256_storeu_ps(p, a.v); }
inline F load(const float* p) { return _mm256_loadu_ps(p); }

inline __m256i two(const std::uint8_t* a, const std::uint8_t* b) {
    return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(a))),
                                   _mm_loadu_si128(reinterpret_cast<const __m128i*>(b)), 1);
}

// A patch is 4 x 2 pixels in two parts of 2 x 2; the window of a part, 4 x 4 voxels, is what a shuffle can look up.
constexpr int PATCH_W = 4, PATCH_H = 2, PARTS = 2, WIDTH = 4, STRIDE = 2, STRIDE_BITS = 1, SPANS = 2;
constexpr int CHUNK = 32, STEP = 1;
inline F lane_u() { return _mm256_setr_ps(0, 1, 0, 1, 2, 3, 2, 3); }
inline F lane_v() { return _mm256_setr_ps(0, 0, 1, 1, 0, 0, 1, 1); }
inline void put(float* to, int pitch, F a) {
    const __m256 rows = _mm256_permutevar8x32_ps(a.v, _mm256_setr_epi32(0, 1, 4, 5, 2, 3, 6, 7));
    _mm_storeu_ps(to, _mm256_castps256_ps128(rows)), _mm_storeu_ps(to + pitch, _mm256_extractf128_ps(rows, 1));
}

// Whether the narrow table does, rays being spread over so many voxels; each plane has its own window.
constexpr bool SHARES = false;
inline bool narrow(float spread_x, float, float, float) { return spread_x < WIDTH - STRIDE - 1; }
struct Windows {
    std::int32_t offset[PARTS][CHUNK], origin[PARTS][CHUNK];
};
struct Steps {
    __m256i at, by;
};
struct Tally {
    __m256i s, x, y;
};
inline void clear(Tally& t) { t.s = t.x = t.y = _mm256_setzero_si256(); }
inline void add(Tally& a, const Tally& b) { a.x = _mm256_add_epi32(a.x, b.x), a.y = _mm256_add_epi32(a.y, b.y); }
inline F to_float(__m256i a) { return _mm256_cvtepi32_ps(a); }
inline F slope_x(const Tally& t) { return to_float(t.x); }
inline F slope_y(const Tally& t) { return to_float(t.y); }
inline __m256i fixed(F a, float one) { return _mm256_cvtps_epi32(_mm256_mul_ps(a.v, _mm256_set1_ps(one))); }
inline __m256i both(__m256i x, __m256i y) { return _mm256_add_epi32(_mm256_slli_epi32(y, 16), x); }
inline Steps steps_of(F x, F y, F dx, F dy) {
    return {both(_mm256_and_si256(fixed(x, 4096), _mm256_set1_epi32(0xffff)), fixed(y, 4096)), both(fixed(dx, 4096), fixed(dy, 4096))};
}

// The taps of eight rays, from a window each for the first and the second four of them.
template <bool WIDE> static inline __m256i taken(const std::uint8_t* a, const std::uint8_t* b, int next, __m256i index, __m256i second) {
    const __m256i near = _mm256_shuffle_epi8(two(a, b), index);
    return WIDE ? _mm256_blendv_epi8(near, _mm256_shuffle_epi8(two(a + next, b + next), index), second) : near;
}

// Have a line ready in the second cache.
inline void ask(const std::uint8_t* at) { _mm_prefetch(reinterpret_cast<const char*>(at), _MM_HINT_T1); }

// Planes first .. last - 1 of the chunk, STEP of them if WHOLE. WIDE: eight columns in two tables.
template <bool GRADIENT, bool WIDE, bool WHOLE>
static inline void run(const Bricks& v, const Windows& w, int first, int last, Steps& steps, Tally& t, Tally& r) {
    const __m256i low7 = _mm256_set1_epi32(0x007f007f), flip_x = low7, flip_y = _mm256_set1_epi32(0x0000007f);
    const __m256i byte0 = _mm256_setr_epi8(0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12, 0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12);
    const __m256i byte2 = _mm256_setr_epi8(2, -1, 2, -1, 6, -1, 6, -1, 10, -1, 10, -1, 14, -1, 14, -1, 2, -1, 2, -1, 6, -1, 6, -1, 10, -1, 10, -1, 14, -1, 14, -1);
    const __m256i down = _mm256_set1_epi32(0x0001ffff), far_down = _mm256_set1_epi32(0x0040ffc0);
    const int next = WIDTH / STRIDE * v.strip;
    for (int p = first; p < (WHOLE ? first + STEP : last); ++p) {
        const std::ptrdiff_t a = w.offset[0][p], b = w.offset[1][p];
        const __m256i from = _mm256_sub_epi32(steps.at, _mm256_blend_epi32(_mm256_set1_epi32(w.origin[0][p]),
                                                                           _mm256_set1_epi32(w.origin[1][p]), 0xf0));
        steps.at = _mm256_add_epi32(steps.at, steps.by);
        const __m256i whole = _mm256_srli_epi16(from, 12), part = _mm256_and_si256(_mm256_srli_epi16(from, 5), low7);
        __m256i index, second = _mm256_setzero_si256();
        if (WIDE) {  // a byte is x in its low, y in its high half
            const __m256i place = _mm256_add_epi8(_mm256_shuffle_epi8(_mm256_madd_epi16(whole, _mm256_set1_epi32(0x00100001)), byte0),
                                                  _mm256_set1_epi32(0x11100100));
            index = _mm256_or_si256(_mm256_and_si256(place, _mm256_set1_epi8(3)),
                                    _mm256_and_si256(_mm256_srli_epi16(place, 2), _mm256_set1_epi8(12)));
            second = _mm256_slli_epi16(place, 5);
        } else {
            index = _mm256_add_epi8(_mm256_shuffle_epi8(_mm256_madd_epi16(whole, _mm256_set1_epi32(0x00040001)), byte0),
                                    _mm256_set1_epi32(0x05040100));
        }
        const __m256i four = taken<WIDE>(v.data + a, v.data + b, next, index, second);
        const __m256i weight_x = _mm256_xor_si256(_mm256_shuffle_epi8(part, byte0), flip_x);
        const __m256i weight_y = _mm256_xor_si256(_mm256_shuffle_epi8(part, byte2), flip_y);
        const __m256i rows = _mm256_maddubs_epi16(four, weight_x);
        t.s = _mm256_add_epi32(t.s, _mm256_madd_epi16(rows, weight_y));
        if (GRADIENT) {
            const __m256i fine = taken<WIDE>(v.fine + a, v.fine + b, next, index, second);
            const __m256i dx = _mm256_add_epi16(_mm256_maddubs_epi16(four, _mm256_set1_epi32(0x40c040c0)),  // FINE, -FINE
                                                _mm256_maddubs_epi16(fine, _mm256_set1_epi32(0x01ff01ff)));
            t.x = _mm256_add_epi32(t.x, _mm256_madd_epi16(dx, weight_y));
            const __m256i dy = _mm256_add_epi32(_mm256_madd_epi16(rows, far_down),
                                                _mm256_madd_epi16(_mm256_maddubs_epi16(fine, weight_x), down));
            t.y = _mm256_add_epi32(t.y, dy);
            add(r, t);
        }
    }
}

#include "direct.hpp"
#include "finish.hpp"
#include "patch.hpp"

}  // namespace

const Path avx2{"AVX2", direct, patches, {WIDTH, STRIDE}};

}  // namespace projector
