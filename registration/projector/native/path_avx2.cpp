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

// Sixteen 16-bit words.
struct W {
    static constexpr int LANES = 16;
    __m256i v;
    W() = default;
    W(__m256i x) : v(x) {}
};
inline W load(const std::int16_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
inline void store(std::int16_t* p, W a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a.v); }
inline W words(int x) { return _mm256_set1_epi16(static_cast<std::int16_t>(x)); }
inline W operator+(W a, W b) { return _mm256_add_epi16(a.v, b.v); }
inline W operator-(W a, W b) { return _mm256_sub_epi16(a.v, b.v); }
inline W times(W a, W b) { return _mm256_mulhrs_epi16(a.v, b.v); }
inline void to_floats(W a, F* out) {
    out[0] = _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm256_castsi256_si128(a.v)));
    out[1] = _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm256_extracti128_si256(a.v, 1)));
}
inline F load(const float* p) { return _mm256_loadu_ps(p); }

constexpr int WINDOW = 16;  // words that one run of columns may reach over
constexpr int RUN = 8;      // columns that share a window: a shuffle takes eight words out of eight
inline int encoded(int index) { return index * 0x0202 + 0x0100; }  // the two bytes of a word

inline __m256i two(const std::int16_t* a, const std::int16_t* b) {
    return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(a))),
                                   _mm_loadu_si128(reinterpret_cast<const __m128i*>(b)), 1);
}

// Columns c .. c + W::LANES of a row: values and differences of neighbours. narrow: eight words hold all taps.
inline void resampled(const std::int16_t* row, const std::int32_t* base, const std::int16_t* index,
                      const std::int16_t* weight, bool narrow, W& value, W& difference) {
    const std::int16_t *a = row + base[0], *b = row + base[1];
    const __m256i first = load(index).v, second = _mm256_add_epi16(first, _mm256_set1_epi16(0x0202));
    const __m256i low = two(a, b);
    __m256i f0, f1;
    if (narrow) {
        f0 = _mm256_shuffle_epi8(low, first), f1 = _mm256_shuffle_epi8(low, second);
    } else {  // a control byte of 128 and more gives zero: each tap comes from the half that has it
        const __m256i high = two(a + 8, b + 8), past = _mm256_set1_epi8(0x70), back = _mm256_set1_epi8(0x10);
        f0 = _mm256_or_si256(_mm256_shuffle_epi8(low, _mm256_adds_epu8(first, past)),
                             _mm256_shuffle_epi8(high, _mm256_sub_epi8(first, back)));
        f1 = _mm256_or_si256(_mm256_shuffle_epi8(low, _mm256_adds_epu8(second, past)),
                             _mm256_shuffle_epi8(high, _mm256_sub_epi8(second, back)));
    }
    difference = _mm256_sub_epi16(f1, f0);
    value = W(f0) + times(difference, load(weight));
}

#include "direct.hpp"
#include "finish.hpp"
#include "shear.hpp"
#include "warp.hpp"

}  // namespace

const Path avx2{"AVX2", direct, shear, warp};

}  // namespace projector
