// SPDX-License-Identifier: Apache-2.0
// A measured picture at all resolutions of a descent, and how well a computed one explains it: ladder.py and gate.py for
// one frame, without leaving C++.
#pragma once

#include <algorithm>
#include <stdexcept>
#include <utility>
#include <vector>

#include "agreement.hpp"
#include "blocks.hpp"
#include "level.hpp"

namespace descent {

class Pyramid {
public:
    // binnings: pixels that become one; sums over finer blocks are added up where they fit.
    Pyramid(const float* picture, const float* weight, int h, int w, bool counts, std::vector<int> binnings, int gate, int threads)
        : picture_(picture), weight_(weight), h_(h), w_(w), counts_(counts) {
        std::sort(binnings.begin(), binnings.end());
        binnings.push_back(gate);
        if (counts) least_ = blocks::smallest(picture, weight, static_cast<std::size_t>(h) * w);
        for (const int k : binnings)
            if (k > 1 && !of(k)) sum(k, threads);
    }

    // What a level sees.
    void look(int k, Level& level) {
        if (level.h() != h_ / k || level.w() != w_ / k) throw std::invalid_argument("a level of another C-arm");
        if (k == 1) {
            level.fixed = of_seen(), level.weight = weight_;
            return;
        }
        const Sums& from = *of(k);
        kept_.push_back(pixels(2 * level.pixels()));
        float* const out = kept_.back()->p;
        blocks::means(from.sums->p, from.h * from.w, k, counts_, least_, out, out + level.pixels());
        level.fixed = out, level.weight = out + level.pixels();
    }

    // How well a level's computed picture explains this one at the gate's resolution; see Ladder.halves.
    correlation::Agreement explained(const float* moving, const Level& level, int k, int gate, const correlation::Asked& asked) const {
        const Sums& from = *of(gate);
        const int n = from.h * from.w, f = gate / k;
        const auto size = static_cast<std::size_t>(n);
        const Pixels out = pixels(5 * size), sums = pixels(f > 1 ? 4 * size : 1), even = pixels(f > 1 ? level.pixels() : 1);
        float *fixed = out->p, *noise = fixed + n, *weight = noise + n, *binned = weight + n;
        blocks::halves(from.sums->p, n, gate, counts_, least_, fixed, noise, weight);
        if (f > 1) {
            std::fill(even->p, even->p + level.pixels(), 1.0f);
            blocks::sum(moving, even->p, level.w(), f, from.h, from.w, false, 0.0f, sums->p, 1);
            blocks::means(sums->p, n, f, false, 0.0f, binned, binned + n);
            moving = binned;
        }
        return correlation::explained({moving, fixed, weight, nullptr, from.h, from.w, 0, true, 0.0f, 0.0f}, noise, asked);
    }

private:
    struct Sums {
        int k, h, w;
        Pixels sums;
    };

    const float *picture_, *weight_;
    int h_, w_;
    bool counts_;
    float least_ = 0;
    std::vector<Sums> made_;
    std::vector<Pixels> kept_;

    // The picture, pixels without weight with the smallest value that is seen: see ladder.py.
    const float* of_seen() {
        const std::size_t n = static_cast<std::size_t>(h_) * w_;
        if (std::all_of(weight_, weight_ + n, [](float w) { return w > 0; })) return picture_;
        const float least = blocks::smallest(picture_, weight_, n);
        kept_.push_back(pixels(n));
        for (std::size_t i = 0; i < n; ++i) kept_.back()->p[i] = weight_[i] > 0 ? picture_[i] : least;
        return kept_.back()->p;
    }

    const Sums* of(int k) const {
        for (const Sums& s : made_)
            if (s.k == k) return &s;
        return nullptr;
    }

    void sum(int k, int threads) {
        const Sums* finer = nullptr;
        for (const Sums& s : made_)
            if (k % s.k == 0 && (!finer || s.k > finer->k)) finer = &s;
        Sums out{k, h_ / k, w_ / k, pixels(static_cast<std::size_t>(4) * (h_ / k) * (w_ / k))};
        if (finer) {
            std::vector<float> line(finer->w);
            blocks::coarsen(finer->sums->p, finer->h, finer->w, k / finer->k, out.h, out.w, line.data(), out.sums->p);
        } else {
            blocks::sum(picture_, weight_, w_, k, out.h, out.w, counts_, least_, out.sums->p, threads);
        }
        made_.push_back(std::move(out));
    }
};

}  // namespace descent
