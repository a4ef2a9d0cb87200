// SPDX-License-Identifier: Apache-2.0
// Which pixels are vessels, where are their centers and how do they run? The second half of vessel_detect.py.
#pragma once

#include <array>
#include <cstring>

#include "vessel_picture.hpp"

namespace vessels {

// Values of which the k-th smallest (k from 0) is asked for several times: by their bits, 11 a pass (radix selection).
class Ranks {
  public:
    explicit Ranks(const Picture& values) : keys_(values.size()), count_(2048, 0) {
        for (std::size_t n = 0; n < values.size(); ++n) {
            std::uint32_t bits;
            std::memcpy(&bits, &values[n], 4);
            keys_[n] = bits & 0x80000000u ? ~bits : bits | 0x80000000u;  // the order of the bits is that of the numbers
        }
        for (std::uint32_t v : keys_) ++count_[v >> 21];
    }

    float at(std::size_t k) const {
        Large<std::uint32_t> left = those(keys_, count_, 21, k);
        for (int shift : {10, 0}) {
            std::vector<std::size_t> count(2048, 0);
            for (std::uint32_t v : left) ++count[(v >> shift) & mask(shift)];
            left = those(left, count, shift, k);
        }
        const std::uint32_t v = left[0], bits = v & 0x80000000u ? v & 0x7fffffffu : ~v;
        float out;
        std::memcpy(&out, &bits, 4);
        return out;
    }

  private:
    static std::uint32_t mask(int shift) { return shift == 0 ? 1023 : 2047; }

    // The keys whose digit at `shift` is that of the k-th; k becomes the rank among them.
    static Large<std::uint32_t> those(const Large<std::uint32_t>& keys, const std::vector<std::size_t>& count,
                                            int shift, std::size_t& k) {
        std::uint32_t digit = 0;
        while (k >= count[digit]) k -= count[digit++];
        Large<std::uint32_t> out(count[digit] + 1);
        std::size_t kept = 0;
        for (std::uint32_t v : keys) {
            out[kept] = v;
            kept += ((v >> shift) & mask(shift)) == digit;
        }
        out.resize(kept);
        return out;
    }

    Large<std::uint32_t> keys_;
    std::vector<std::size_t> count_;
};

struct Rules {  // of registration/vessel_detect.py
    double mm, shortest_mm, noise_sigmas, faintest_share;
};

// Connected pieces (by eight neighbors) too short or too small for a vessel are taken out.
inline void without_short(Mask& mask, Size n, const Rules& rules) {
    std::vector<int> piece;
    Mask seen(mask.size(), 0);
    for (std::size_t first = 0; first < mask.size(); ++first) {
        if (!mask[first] || seen[first]) continue;
        piece.assign(1, static_cast<int>(first));
        seen[first] = 1;
        int top = n.rows, bottom = -1, left = n.cols, right = -1;
        for (std::size_t k = 0; k < piece.size(); ++k) {
            const int y = piece[k] / n.cols, x = piece[k] % n.cols;
            top = std::min(top, y), bottom = std::max(bottom, y), left = std::min(left, x), right = std::max(right, x);
            for (int v = std::max(y - 1, 0); v <= std::min(y + 1, n.rows - 1); ++v)
                for (int u = std::max(x - 1, 0); u <= std::min(x + 1, n.cols - 1); ++u) {
                    const int at = v * n.cols + u;
                    if (mask[at] && !seen[at]) seen[at] = 1, piece.push_back(at);
                }
        }
        const double extent = std::hypot(bottom - top + 1, right - left + 1) * rules.mm;
        const double area = static_cast<double>(piece.size()) * rules.mm * rules.mm;
        if (!(extent > rules.shortest_mm && area > 2 * rules.shortest_mm))
            for (int at : piece) mask[at] = 0;
    }
}

// Vessels: what exceeds the noise and a share of the typical vessel's contrast. Half of the field is free of vessels,
// so the lower half of the distribution tells the noise.
inline Mask segmented(const Picture& contrast, const Mask& field, Size n, const Rules& rules) {
    Picture inside(contrast.size() + 1);
    std::size_t n_inside = 0;
    for (std::size_t k = 0; k < contrast.size(); ++k) {
        inside[n_inside] = contrast[k];
        n_inside += field[k];
    }
    inside.resize(n_inside);
    Mask out(contrast.size(), 0);
    if (n_inside < 100) return out;
    const Ranks ranks(inside);
    const double middle = ranks.at(n_inside / 2);
    const double noise = 1.4826 * (middle - ranks.at(n_inside / 4));  // median distance of the lower half
    const auto clear = static_cast<float>(middle + rules.noise_sigmas * noise);
    const auto sure = static_cast<std::size_t>(std::count_if(inside.begin(), inside.end(), [clear](float v) { return v > clear; }));
    if (noise <= 0 || sure == 0 || static_cast<double>(sure) * rules.mm * rules.mm < rules.shortest_mm) return out;
    const double typical = ranks.at(n_inside - sure + (sure - 1) * 3 / 4) - middle;  // the upper quartile of what is sure
    const auto least = static_cast<float>(middle + std::max(rules.noise_sigmas * noise, rules.faintest_share * typical));
    for (std::size_t k = 0; k < out.size(); ++k) out[k] = field[k] && contrast[k] > least;
    without_short(out, n, rules);
    return out;
}

// Which 3 x 3 neighborhoods (bits clockwise from above) lose their middle in each half step.
// Source: Zhang, Suen, Commun. ACM 27(3), 1984, conditions (a) to (d).
inline std::array<std::array<bool, 256>, 2> thinning_tables() {
    std::array<std::array<bool, 256>, 2> out{};
    for (int code = 0; code < 256; ++code) {
        int count = 0, turns = 0;
        const auto p = [code](int k) { return (code >> (k % 8)) & 1; };
        for (int k = 0; k < 8; ++k) count += p(k), turns += !p(k) && p(k + 1);
        const bool simple = count >= 2 && count <= 6 && turns == 1;
        const int north = p(0), east = p(2), south = p(4), west = p(6);
        out[0][code] = simple && !(north && east && south) && !(east && south && west);
        out[1][code] = simple && !(north && east && west) && !(north && south && west);
    }
    return out;
}

// The center pixels of a mask: indices into it, in rising order.
inline std::vector<int> thinned(const Mask& mask, Size n) {
    static const auto tables = thinning_tables();
    const int width = n.cols + 2;
    Mask padded(static_cast<std::size_t>(n.rows + 2) * width, 0);
    std::vector<int> at, gone;
    for (int y = 0; y < n.rows; ++y)
        for (int x = 0; x < n.cols; ++x)
            if (mask[static_cast<std::size_t>(y) * n.cols + x]) padded[at.emplace_back((y + 1) * width + x + 1)] = 1;
    const int around[8] = {-width, 1 - width, 1, 1 + width, width, width - 1, -1, -1 - width};
    for (std::size_t before = at.size() + 1; at.size() != before;) {
        before = at.size();
        for (const auto& table : tables) {
            gone.clear();
            std::size_t kept = 0;
            for (int k : at) {
                int code = 0;
                for (int b = 0; b < 8; ++b) code |= padded[k + around[b]] << b;
                if (table[code]) gone.push_back(k);
                else at[kept++] = k;
            }
            at.resize(kept);
            for (int k : gone) padded[k] = 0;
        }
    }
    for (int& k : at) k = (k / width - 1) * n.cols + k % width - 1;
    return at;
}

// Direction of the vessel at each of the pixels `at`, unit (x, y): the smaller axis of the mask's structure tensor,
// blurred by a Gauss of `sigma` px that is summed at these pixels only (5,000 sums of 40 x 40 against 260,000 of 80).
inline std::vector<double> tangents(const Mask& mask, Size n, const std::vector<int>& at, double sigma) {
    const Picture soft = smoothed(Picture(mask.begin(), mask.end()), n);
    Picture xx(n.pixels(), 0.0f), xy(xx), yy(xx);
    for (int y = 1; y < n.rows - 1; ++y) {
        const float *b = soft.data() + static_cast<std::size_t>(y) * n.cols, *a = b - n.cols, *c = b + n.cols;
        const std::size_t row = static_cast<std::size_t>(y) * n.cols;
        for (int x = 1; x < n.cols - 1; ++x) {  // Sobel
            const float gx = a[x + 1] - a[x - 1] + 2 * (b[x + 1] - b[x - 1]) + c[x + 1] - c[x - 1];
            const float gy = c[x - 1] - a[x - 1] + 2 * (c[x] - a[x]) + c[x + 1] - a[x + 1];
            xx[row + x] = gx * gx, xy[row + x] = gx * gy, yy[row + x] = gy * gy;
        }
    }
    const int reach = static_cast<int>(std::ceil(3 * sigma));
    std::vector<float> taps(2 * reach + 1);
    for (int k = -reach; k <= reach; ++k) taps[k + reach] = static_cast<float>(std::exp(-0.5 * k * k / (sigma * sigma)));
    std::vector<double> out;
    for (int k : at) {
        const int y0 = k / n.cols, x0 = k % n.cols;
        const int left = std::max(x0 - reach, 0), right = std::min(x0 + reach, n.cols - 1);
        float sxx = 0, sxy = 0, syy = 0;
        for (int y = std::max(y0 - reach, 0); y <= std::min(y0 + reach, n.rows - 1); ++y) {
            const std::size_t row = static_cast<std::size_t>(y) * n.cols;
            const float* t = taps.data() + (left - x0 + reach);
            float a = 0, b = 0, c = 0;
            const float *p = &xx[row + left], *q = &xy[row + left], *r = &yy[row + left];
            for (int x = 0; x <= right - left; ++x) a += t[x] * p[x], b += t[x] * q[x], c += t[x] * r[x];
            const float down = taps[y - y0 + reach];
            sxx += down * a, sxy += down * b, syy += down * c;
        }
        const double across = 0.5 * std::atan2(2.0 * sxy, double(sxx) - syy);
        out.push_back(-std::sin(across)), out.push_back(std::cos(across));
    }
    return out;
}

}  // namespace vessels
