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
inline F floor(F a) { return _mm256_floor_ps(a.v); }
inline I to_int(F a) { return _mm256_cvttps_epi32(a.v); }
inline F gather(const float* p, I at) { return _mm256_i32gather_ps(p, at.v, 4); }
inline M between(F x, F low, F high) {
    return {_mm256_and_ps(_mm256_cmp_ps(x.v, low.v, _CMP_GE_OQ), _mm256_cmp_ps(x.v, high.v, _CMP_LE_OQ))};
}
inline F add_if(M m, F a, F b) { return _mm256_add_ps(a.v, _mm256_and_ps(m.v, b.v)); }
inline F iota(float first) { return _mm256_add_ps(_mm256_set1_ps(first), _mm256_setr_ps(0, 1, 2, 3, 4, 5, 6, 7)); }
inline void store(float* p, F a) { _mm256_storeu_ps(p, a.v); }

#include "direct.hpp"
#include "finish.hpp"

}  // namespace

const Path avx2{"AVX2", direct};

}  // namespace projector
