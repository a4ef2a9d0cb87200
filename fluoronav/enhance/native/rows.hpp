// SPDX-License-Identifier: Apache-2.0
// What the fused kernels do to one row. A kernel walks down its band of rows once; every stage keeps the few rows that
// the next one needs in a ring, so that a picture is read and written once and the rest stays in the second cache.
//
// Lines are averaged in 16 bits: steps of 1/64 of the noise (innovations) or 1/32 (details) are far below it, a sum of
// 11 fits, and twice as many pixels fit into a register as in float32. Integer sums are exact in any order.
#pragma once

#include "kernels.hpp"

namespace fluoronav {

using Short = std::int16_t;

// Buffers of the calling thread, kept from call to call: fresh pages cost as much as the sums made in them. What is
// taken is not cleared; one Scratch at a time a thread, the next one takes the same buffers again.
class Scratch {
  public:
    template <class T>
    T* take(std::size_t n) {
        return reinterpret_cast<T*>(floats((n * sizeof(T) + sizeof(float) - 1) / sizeof(float)));
    }

  private:
    float* floats(std::size_t n) {
        static thread_local std::vector<std::vector<float>> kept;
        if (next_ == kept.size()) kept.emplace_back();
        std::vector<float>& buffer = kept[next_++];
        if (buffer.size() < n) buffer.resize(n);
        return buffer.data();
    }
    std::size_t next_ = 0;
};

// The last `height` rows (a power of two) of a picture, each with kPad repeated pixels at both ends.
template <class T>
class Ring {
  public:
    Ring(Scratch& scratch, int height, int rows, int cols)
        : mask_(height - 1), rows_(rows), cols_(cols), stride_(cols + 2 * kPad + kSpare),
          data_(scratch.take<T>(std::size_t(height) * stride_)) {}
    T* row(int y) { return data_ + std::size_t(y & mask_) * stride_ + kPad; }
    const T* at(int y) const {  // rows beyond the picture repeat its first and last
        y = y < 0 ? 0 : (y >= rows_ ? rows_ - 1 : y);
        return data_ + std::size_t(y & mask_) * stride_ + kPad;
    }
    void repeat(int y) {
        T* p = row(y);
        std::fill(p - kPad, p, p[0]);
        std::fill(p + cols_, p + cols_ + kPad, p[cols_ - 1]);
    }

  private:
    static constexpr int kSpare = 16;  // rows begin in different sets of the cache
    int mask_, rows_, cols_, stride_;
    T* data_;
};

constexpr float kInnovationSteps = 64, kInnovationMost = 742;    // 742 * 16 / 4 * 11 < 2^15
constexpr float kDetailSteps = 32, kDetailMost = 2978;           // 2978 * 11 < 2^15
constexpr float kEvidenceUnit = 1.0f / (256.0f * (2 * kReach + 1));  // of a sum of 11 blurred innovations
constexpr float kDetailUnit = 1.0f / (kDetailSteps * (2 * kReach + 1));

// To the nearest step: truncation of a positive number.
FLUORONAV_INLINE Short stepped(float x, float most) {
    x = x < -most ? -most : (x > most ? most : x);
    return Short(int(x + 4096.5f) - 4096);
}

// The largest of a pixel and its four neighbors.
template <class T>
FLUORONAV_INLINE void widened_row(const T* a, const T* b, const T* c, int cols, T* __restrict out) {
#pragma GCC ivdep
    for (int x = 0; x < cols; ++x) {
        T m = a[x] > c[x] ? a[x] : c[x];
        m = b[x - 1] > m ? b[x - 1] : m;
        m = b[x + 1] > m ? b[x + 1] : m;
        out[x] = b[x] > m ? b[x] : m;
    }
}

void innovation_row(const float* y, const float* m, const float* v, float frame, int cols, Short* out);
// 16/4 times the 3x3 binomial mean: steps of 1/256
void soft_row(const Short* a, const Short* b, const Short* c, int cols, Short* vertical, Short* out);
// of twelve lines through a pixel the sum of 11 that is largest in magnitude; `near`: rows y - 5 to y + 5
void line_sums(const Short* const* near, int cols, Short* best);
void detail_row(const float* m, const float* base, int cols, Short* out);
// 5x5 binomial mean of rows y - 2 to y + 2; taps `apart` pixels apart (2: a trous, 13x13 of a 5x5 mean)
void binomial_row(const float* const* near, int apart, int cols, float* vertical, float* out);

}  // namespace fluoronav
