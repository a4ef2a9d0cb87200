// SPDX-License-Identifier: Apache-2.0
// AVX-512 (F, BW, VL, DQ, VBMI, VNNI, with GFNI): sixteen lanes.
#include <immintrin.h>

#include "path.hpp"

namespace projector {
namespace {

struct F {
    static constexpr int W = 16;
    __m512 v;
    F() = default;
    F(__m512 x) : v(x) {}
    explicit F(float x) : v(_mm512_set1_ps(x)) {}
};
struct I {
    __m512i v;
    I(__m512i x) : v(x) {}
    explicit I(std::int32_t x) : v(_mm512_set1_epi32(x)) {}
};
using M = __mmask16;
inline F operator+(F a, F b) { return _mm512_add_ps(a.v, b.v); }
inline F operator-(F a, F b) { return _mm512_sub_ps(a.v, b.v); }
inline F operator*(F a, F b) { return _mm512_mul_ps(a.v, b.v); }
inline F operator/(F a, F b) { return _mm512_div_ps(a.v, b.v); }
inline I operator+(I a, I b) { return _mm512_add_epi32(a.v, b.v); }
inline I operator*(I a, I b) { return _mm512_mullo_epi32(a.v, b.v); }
inline F fma(F a, F b, F c) { return _mm512_fmadd_ps(a.v, b.v, c.v); }
inline F min(F a, F b) { return _mm512_min_ps(a.v, b.v); }
inline F max(F a, F b) { return _mm512_max_ps(a.v, b.v); }
inline F clamp(F x, F low, F high) { return min(max(x, low), high); }
inline F sqrt(F a) { return _mm512_sqrt_ps(a.v); }
inline F floor(F a) { return _mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }
inline I to_int(F a) { return _mm512_cvttps_epi32(a.v); }
inline F gather(const float* p, I at) { return _mm512_i32gather_ps(at.v, p, 4); }
inline M between(F x, F low, F high) {
    return _mm512_mask_cmp_ps_mask(_mm512_cmp_ps_mask(x.v, low.v, _CMP_GE_OQ), x.v, high.v, _CMP_LE_OQ);
}
inline F add_if(M m, F a, F b) { return _mm512_mask_add_ps(a.v, m, a.v, b.v); }
inline F iota(float first) {
    return _mm512_add_ps(_mm512_set1_ps(first),
                         _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
}
inline void store(float* p, F a) { _mm512_storeu_ps(p, a.v); }
inline F load(const float* p) { return _mm512_loadu_ps(p); }

// A patch is 4 x 4 pixels; its window, 8 rows of 8 voxels in each of two neighbouring strips, two registers that a
// permutation takes as one table. So no voxel is stored twice for its x, and memory is what bounds large volumes.
constexpr int PATCH_W = 4, PATCH_H = 4, PARTS = 1, WIDTH = 8, STRIDE = 8, STRIDE_BITS = 3, SPANS = 2;
constexpr int CHUNK = 32, STEP = 4;
inline F lane_u() { return _mm512_setr_ps(0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3); }
inline F lane_v() { return _mm512_setr_ps(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3); }
inline void put(float* to, int pitch, F a) {
    _mm_storeu_ps(to, _mm512_castps512_ps128(a.v)), _mm_storeu_ps(to + pitch, _mm512_extractf32x4_ps(a.v, 1));
    _mm_storeu_ps(to + 2 * pitch, _mm512_extractf32x4_ps(a.v, 2)), _mm_storeu_ps(to + 3 * pitch, _mm512_extractf32x4_ps(a.v, 3));
}

// Whether STEP planes may share a window, rays of slopes up to `slope` being spread over so many voxels.
constexpr bool SHARES = true;
inline bool narrow(float spread_x, float spread_y, float slope_x, float slope_y) {
    return spread_x + (STEP - 1) * slope_x < 2 * WIDTH - STRIDE - 1 && spread_y + (STEP - 1) * slope_y < 8 - 2;
}
struct Windows {
    std::int32_t offset[PARTS][CHUNK], origin[PARTS][CHUNK];
};
struct Steps {
    __m512i at, by;
};
struct Tally {
    __m512i s, x, y;
};
inline void clear(Tally& t) { t.s = t.x = t.y = _mm512_setzero_si512(); }
inline void add(Tally& a, const Tally& b) {
    a.x = _mm512_add_epi32(a.x, b.x), a.y = _mm512_add_epi32(a.y, b.y);
}
inline F to_float(__m512i a) { return _mm512_cvtepi32_ps(a); }
inline F slope_x(const Tally& t) { return to_float(t.x); }
inline F slope_y(const Tally& t) { return to_float(t.y); }
inline __m512i fixed(F a, float one) { return _mm512_cvtps_epi32(_mm512_mul_ps(a.v, _mm512_set1_ps(one))); }
inline __m512i both(__m512i x, __m512i y) { return _mm512_add_epi32(_mm512_slli_epi32(y, 16), x); }
inline Steps steps_of(F x, F y, F dx, F dy) {
    return {both(_mm512_and_si512(fixed(x, 4096), _mm512_set1_epi32(0xffff)), fixed(y, 4096)), both(fixed(dx, 4096), fixed(dy, 4096))};
}

// Four bytes a ray, each the eight bits of its position from a bit on.
inline __m512i bits(__m512i at, int bit) {
    const long long both = 0x0101010101010101LL * bit + 0x2020202000000000LL;
    return _mm512_multishift_epi64_epi8(_mm512_set1_epi64(both), at);
}
// Written out: the compiler copies the sums back and forth around its own names for these.
inline void add_words(__m512i& sum, __m512i a, __m512i b) { asm("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b)); }
inline void add_bytes(__m512i& sum, __m512i a, __m512i b) { asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b)); }
constexpr int PICK = 0xca, FLIP = 0x28;  // ternary logic of (a, b, c): a ? b : c, and (a ^ b) & c

// Have a line ready in the second cache.
inline void ask(const std::uint8_t* at) { _mm_prefetch(reinterpret_cast<const char*>(at), _MM_HINT_T1); }

// Planes first .. last - 1 of the chunk, STEP of them if WHOLE. They share a window; WIDE: each has its own.
template <bool GRADIENT, bool WIDE, bool WHOLE>
static inline void run(const Bricks& v, const Windows& w, int first, int last, Steps& steps, Tally& t, Tally& r) {
    constexpr int SHARE = WIDE ? 1 : STEP;
    // of a place (y in the high, x in the low four bits) the byte of the table: strip, row, x within the strip
    const __m512i strips = _mm512_set1_epi64(0x0102041020400800);
    const __m512i low4 = _mm512_set1_epi8(15), taps = _mm512_set1_epi32(0x11100100), low7 = _mm512_set1_epi8(127);
    const __m512i flip_x = _mm512_set1_epi32(0x007f007f), flip_y = _mm512_set1_epi32(0x0000007f), words = _mm512_set1_epi32(0x007f007f);
    const __m512i down = _mm512_set1_epi32(0x0001ffff), far_down = _mm512_set1_epi32(0x0040ffc0), across = _mm512_set1_epi32(0x01ff01ff), coarse = _mm512_set1_epi32(0x40c040c0);
    for (int p = first; p < (WHOLE ? first + STEP : last); p += SHARE) {
        const __m512i origin = _mm512_set1_epi32(w.origin[0][p / SHARE]);
        const std::uint8_t *window = v.data + w.offset[0][p / SHARE], *finer = v.fine + w.offset[0][p / SHARE];
        __m512i from = _mm512_sub_epi32(steps.at, origin);
        for (int i = 0; i < (WIDE ? 1 : WHOLE ? STEP : last - first); ++i, window += TALL * WIDTH, finer += TALL * WIDTH) {
            const __m512i place = _mm512_add_epi8(_mm512_ternarylogic_epi32(low4, bits(from, 12), bits(from, 24), PICK), taps);
            const __m512i index = _mm512_gf2p8affine_epi64_epi8(place, strips, 0);
            const __m512i four = _mm512_permutex2var_epi8(_mm512_loadu_si512(window), index, _mm512_loadu_si512(window + v.strip));
            const __m512i weight_x = _mm512_ternarylogic_epi32(bits(from, 5), flip_x, low7, FLIP);
            const __m512i weight_y = _mm512_ternarylogic_epi32(bits(from, 21), flip_y, words, FLIP);
            const __m512i rows = _mm512_maddubs_epi16(four, weight_x);
            from = _mm512_add_epi32(from, steps.by);
            add_words(t.s, rows, weight_y);
            if (GRADIENT) {
                const __m512i fine = _mm512_permutex2var_epi8(_mm512_loadu_si512(finer), index, _mm512_loadu_si512(finer + v.strip));
                add_words(t.y, rows, far_down);
                add_words(t.y, _mm512_maddubs_epi16(fine, weight_x), down);
                add_words(t.x, _mm512_add_epi16(_mm512_maddubs_epi16(four, coarse), _mm512_maddubs_epi16(fine, across)), weight_y);
                add(r, t);
            }
        }
        steps.at = _mm512_add_epi32(from, origin);
    }
}

#include "direct.hpp"
#include "finish.hpp"
#include "patch.hpp"

}  // namespace

const Path avx512{"AVX-512", direct, patches, {WIDTH, STRIDE}};

}  // namespace projector
