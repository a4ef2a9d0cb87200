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
inline F floor(F a) { EACH a.v[i] = static_cast<float>(static_cast<std::int32_t>(a.v[i])); return a; }  // positive
inline I to_int(F a) { I out; EACH out.v[i] = static_cast<std::int32_t>(a.v[i]); return out; }
inline F gather(const float* p, I at) { F out; EACH out.v[i] = p[at.v[i]]; return out; }
inline M between(F x, F low, F high) { M out; EACH out.v[i] = x.v[i] >= low.v[i] && x.v[i] <= high.v[i]; return out; }
inline F add_if(M m, F a, F b) { EACH a.v[i] += m.v[i] ? b.v[i] : 0.f; return a; }
inline F iota(float first) { F out; EACH out.v[i] = first + static_cast<float>(i); return out; }
inline void store(float* p, F a) { EACH p[i] = a.v[i]; }

// Eight 16-bit words.
struct W {
    static constexpr int LANES = 8;
    std::int16_t v[LANES];
};
inline W load(const std::int16_t* p) { W a; EACH a.v[i] = p[i]; return a; }
inline void store(std::int16_t* p, W a) { EACH p[i] = a.v[i]; }
inline W words(int x) { W a; EACH a.v[i] = static_cast<std::int16_t>(x); return a; }
inline W operator+(W a, W b) { EACH a.v[i] = static_cast<std::int16_t>(a.v[i] + b.v[i]); return a; }
inline W operator-(W a, W b) { EACH a.v[i] = static_cast<std::int16_t>(a.v[i] - b.v[i]); return a; }
inline W times(W a, W b) { EACH a.v[i] = static_cast<std::int16_t>((a.v[i] * b.v[i] + 0x4000) >> 15); return a; }
inline void to_floats(W a, F* out) { EACH out[0].v[i] = static_cast<float>(a.v[i]); }
inline F load(const float* p) { F a; EACH a.v[i] = p[i]; return a; }
#undef EACH

constexpr int WINDOW = 40;     // words that one run of columns may reach over
constexpr int RUN = 8;         // columns that share a window
inline int encoded(int index) { return index; }

// Columns c .. c + W::LANES of a row: values and differences of neighbours, at the places of `Columns`.
inline void resampled(const std::int16_t* window, const std::int32_t* base, const std::int16_t* index,
                      const std::int16_t* weight, bool, W& value, W& difference) {
    const std::int16_t* at = window + *base;
    W first, second;
    for (int i = 0; i < W::LANES; ++i) first.v[i] = at[index[i]], second.v[i] = at[index[i] + 1];
    difference = second - first;
    value = first + times(difference, load(weight));
}

#include "direct.hpp"
#include "finish.hpp"
#include "shear.hpp"
#include "warp.hpp"

}  // namespace

const Path portable{"portable C++", direct, shear, warp};

}  // namespace projector
