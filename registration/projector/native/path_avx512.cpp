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

#include "direct.hpp"
#include "finish.hpp"

}  // namespace

const Path avx512{"AVX-512", direct};

}  // namespace projector
