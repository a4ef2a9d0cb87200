// SPDX-License-Identifier: Apache-2.0
// How well does a computed picture explain a measured one, patch by patch, as far as noise allows? What gate.py weighs.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "blocks.hpp"
#include "correlation.hpp"

namespace correlation {

struct Agreement {
    double median = 0, share = 0;  // of r over what noise allows it; of patches above one half of that
    std::size_t patches = 0;       // that show more than noise
};

// Over the patches at least half seen that show more than noise. noise: a picture of the noise in `fixed` alone.
inline Agreement agreement(Pictures pictures, const float* noise, int patch) {
    const Settings settings{pictures.gradient, patch, 0.0, 0};
    const Correlation made(pictures, settings, 1);
    pictures.fixed = noise;
    const Correlation lost(pictures, settings, 1);
    const auto& mass = made.result.mass;
    const double whole = patch ? patch : std::max(pictures.h, pictures.w);
    const double enough = 0.5 * std::min(whole * whole, *std::max_element(mass.begin(), mass.end()));
    std::vector<double> shares;
    int above = 0;
    for (std::size_t p = 0; p < mass.size(); ++p) {
        const int cell = static_cast<int>(p);
        const double clean = 1 - lost.energy_fixed(cell) / std::max(made.energy_fixed(cell), 1e-30);
        const double attainable = std::sqrt(std::clamp(clean, 0.0, 1.0));
        if (mass[p] > enough && attainable > 0.5) shares.push_back(made.result.r[p] / attainable);
    }
    for (const double s : shares) above += s > 0.5;
    std::sort(shares.begin(), shares.end());
    const std::size_t n = shares.size();
    if (!n) return {};
    return {0.5 * (shares[(n - 1) / 2] + shares[n / 2]), static_cast<double>(above) / static_cast<double>(n), n};
}

struct Asked {
    int patch;       // px
    double enough;   // patches that need no larger pixels
    double more;     // how many times as many patches those must show
};

// The agreement of gradients; where too few patches show more than noise that of larger pixels, in patches of the same
// place and size, if many more show something there.
inline Agreement explained(Pictures pictures, const float* noise, const Asked& asked) {
    const Agreement fine = agreement(pictures, noise, asked.patch);
    if (static_cast<double>(fine.patches) >= asked.enough || std::min(pictures.h, pictures.w) < 6) return fine;
    const int h = pictures.h / 2, w = pictures.w / 2, n = h * w;
    const auto size = static_cast<std::size_t>(n);
    std::vector<float> sums(4 * size), means[3] = {std::vector<float>(size), std::vector<float>(size), std::vector<float>(size)},
        weight(size);
    const float* all[3] = {pictures.moving, pictures.fixed, noise};
    for (int i = 0; i < 3; ++i) {
        blocks::sum(all[i], pictures.weight, pictures.w, 2, h, w, false, 0.0f, sums.data(), 1);
        blocks::means(sums.data(), n, 2, false, 0.0f, means[i].data(), weight.data());
    }
    pictures.moving = means[0].data(), pictures.fixed = means[1].data(), pictures.weight = weight.data(), pictures.h = h, pictures.w = w;
    const Agreement coarse = agreement(pictures, means[2].data(), asked.patch / 2);
    return static_cast<double>(coarse.patches) > asked.more * static_cast<double>(fine.patches) ? coarse : fine;
}

}  // namespace correlation
