// SPDX-License-Identifier: Apache-2.0
// AVX-512 (F, BW, VL, DQ, VBMI): sixteen lanes.
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

// Thirty-two 16-bit words.
struct W {
    static constexpr int LANES = 32;
    __m512i v;
    W() = default;
    W(__m512i x) : v(x) {}
};
inline W load(const std::int16_t* p) { return _mm512_loadu_si512(p); }
inline void store(std::int16_t* p, W a) { _mm512_storeu_si512(p, a.v); }
inline W words(int x) { return _mm512_set1_epi16(static_cast<std::int16_t>(x)); }
inline W operator+(W a, W b) { return _mm512_add_epi16(a.v, b.v); }
inline W operator-(W a, W b) { return _mm512_sub_epi16(a.v, b.v); }
inline W times(W a, W b) { return _mm512_mulhrs_epi16(a.v, b.v); }
inline void to_floats(W a, F* out) {
    out[0] = _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(_mm512_castsi512_si256(a.v)));
    out[1] = _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(_mm512_extracti64x4_epi64(a.v, 1)));
}
inline F load(const float* p) { return _mm512_loadu_ps(p); }

constexpr int WINDOW = 64;  // words that one run of columns may reach over: two registers are one table
constexpr int RUN = 32;     // columns that share a window
inline int encoded(int index) { return index; }

// Columns c .. c + W::LANES of a row: values and differences of neighbours. narrow: 32 words hold all taps.
inline void resampled(const std::int16_t* row, const std::int32_t* base, const std::int16_t* index,
                      const std::int16_t* weight, bool narrow, W& value, W& difference) {
    const std::int16_t* at = row + *base;
    const __m512i first = load(index).v, second = _mm512_add_epi16(first, _mm512_set1_epi16(1)), low = load(at).v;
    __m512i f0, f1;
    if (narrow) {
        f0 = _mm512_permutexvar_epi16(first, low), f1 = _mm512_permutexvar_epi16(second, low);
    } else {
        const __m512i high = load(at + 32).v;
        f0 = _mm512_permutex2var_epi16(low, first, high), f1 = _mm512_permutex2var_epi16(low, second, high);
    }
    difference = _mm512_sub_epi16(f1, f0);
    value = W(f0) + times(difference, load(weight));
}

#include "direct.hpp"
#include "finish.hpp"
#include "shear.hpp"
#include "warp.hpp"

}  // namespace

const Path avx512{"AVX-512", direct, shear, warp};

}  // namespace projector
