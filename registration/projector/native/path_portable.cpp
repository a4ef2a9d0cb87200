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
#undef EACH

#include "direct.hpp"
#include "finish.hpp"

}  // namespace

const Path portable{"portable C++", direct};

}  // namespace projector
