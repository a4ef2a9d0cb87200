// SPDX-License-Identifier: Apache-2.0
// One resolution of a descent: solver.py's Levenberg-Marquardt for one body in one view, without leaving C++.
//
// A picture of 128 x 128 pixels with its Jacobian takes 0.4 ms, its normal equations 0.1 ms, and each step of the way
// through Python would take as long again. The Jacobian serves as long as the picture moves by less than FROZEN_PX; with
// it stand all the sums that the new picture does not enter (correlation.hpp). The last step, too short to matter, is
// taken without another look: the picture where it leads is foreseen from the Jacobian.
#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "../projector/native/arrays.hpp"
#include "../projector/native/bricks.hpp"
#include "../projector/native/climb.hpp"
#include "../projector/native/crew.hpp"
#include "correlation.hpp"
#include "intrinsics.hpp"

namespace descent {

constexpr double FROZEN_PX = 0.35;  // as in solver.py

struct Level {
    projector::Bricks volume;
    int axis;
    const double* index_from_patient;
    projector::Arm arm;
    const float *fixed, *weight;
    correlation::Settings measure;
    int iterations;
    bool robust;
    double tolerance_px;
    bool last;  // then the normal equations are wanted where the pose comes to rest, with SDD and principal point

    int columns() const { return last ? 9 : 6; }
    int h() const { return static_cast<int>(arm.h); }
    int w() const { return static_cast<int>(arm.w); }
    std::size_t pixels() const { return static_cast<std::size_t>(h()) * w(); }
};

using Pixels = std::unique_ptr<projector::Buffer>;
inline Pixels pixels(std::size_t n) { return std::make_unique<projector::Buffer>(n); }

// Thrown where the volume's bricks do not serve a pose: another renderer has to do it.
struct NotServed {};

class Descent {
public:
    Descent(const Level& level, const projector::Path& path, int threads)
        : level_(level), path_(path), threads_(threads), moving_(pixels(level.pixels())) {}

    // From a pose to where it comes to rest.
    void run(projector::Pose& pose) {
        double damping = 1e-3, strayed = 0, step[6];
        look(pose);
        if (level_.robust && level_.iterations > 0) {  // see solver.py: weights are those of where a step without them leads
            if (!projector::step_of(equations(), damping, step)) return;
            pose = projector::moved(pose, step);
            weigh(pose);
        }
        for (int i = 0; i < level_.iterations; ++i) {
            if (!projector::step_of(equations(), damping, step)) return;
            const double moved = projector::movement_px(step, level_.arm);
            const projector::Pose there = projector::moved(pose, step);
            if (moved < level_.tolerance_px) {
                pose = there;
                if (level_.last) foresee(step);
                return;
            }
            strayed += moved;
            Kept before = keep();
            if (strayed > FROZEN_PX) {
                look(there);
                strayed = 0;
            } else {
                glance(there);
            }
            if (likeness->result.value > before.likeness.result.value) {
                pose = there, damping = std::max(damping * 0.2, 1e-5);
            } else {
                restore(std::move(before));
                damping = std::max(damping * 8, 1e-2);
                if (damping > 1e3) return;
            }
        }
    }

    std::optional<correlation::Correlation> likeness;  // where the pose is now
    int renders = 0;
    const float* picture() const { return moving_->p; }  // computed, where the pose is now
    Pixels take() { return std::move(moving_); }

private:
    using Slopes = std::shared_ptr<projector::Buffer>;
    struct Kept {
        correlation::Correlation likeness;
        Pixels moving;
        Slopes slopes;
    };

    const Level& level_;
    const projector::Path& path_;
    int threads_;
    Pixels moving_;
    Slopes slopes_;
    std::vector<float> weight_;  // lowered, where that is asked for

    // Picture and Jacobian of a pose, and all sums of them.
    void look(const projector::Pose& pose) {
        draw(pose);
        sum();
    }

    // The same, with lower weights for what the pose's picture does not have.
    void weigh(const projector::Pose& pose) {
        draw(pose);
        correlation::Settings patches = level_.measure;
        patches.patch = patches.patch ? patches.patch : 64;
        weight_.assign(level_.weight, level_.weight + level_.pixels());
        correlation::Correlation(pictures(level_.weight), patches, threads_).robust(weight_.data());
        sum();
    }

    void draw(const projector::Pose& pose) {
        slopes_ = std::make_shared<projector::Buffer>(level_.columns() * level_.pixels());
        render(pose, slopes_->p);
    }

    correlation::Pictures pictures(const float* weight) const {
        return {moving_->p, level_.fixed, weight, nullptr, level_.h(), level_.w(), 0, level_.measure.gradient, 0.0f, 0.0f};
    }

    void sum() {
        correlation::Pictures all = pictures(weight_.empty() ? level_.weight : weight_.data());
        all.jacobian = slopes_->p, all.n = level_.columns();
        likeness.emplace(all, level_.measure, threads_);
    }

    // The picture of a pose; the Jacobian stays.
    void glance(const projector::Pose& pose) {
        render(pose, nullptr);
        likeness->again(moving_->p, threads_);
    }

    // The picture where a step leads, as far as the Jacobian tells.
    void foresee(const double* step) {
        const auto n = static_cast<std::ptrdiff_t>(level_.pixels());
        moved_by(slopes_->p, step, n, moving_->p);
        double all[9] = {};
        std::copy(step, step + 6, all);
        likeness->foresee(all);
    }

    FLUORONAV_CLONES static void moved_by(const float* slopes, const double* step, std::ptrdiff_t n, float* out) {
        float s[6];
        for (int k = 0; k < 6; ++k) s[k] = static_cast<float>(step[k]);
        const float *a = slopes, *b = a + n, *c = b + n, *d = c + n, *e = d + n, *f = e + n;
#pragma GCC ivdep
        for (std::ptrdiff_t i = 0; i < n; ++i)
            out[i] += s[0] * a[i] + s[1] * b[i] + s[2] * c[i] + s[3] * d[i] + s[4] * e[i] + s[5] * f[i];
    }

    void render(const projector::Pose& pose, float* slopes) {
        double m[16];
        projector::write_pose(pose, m);
        const projector::Placed placed = projector::place(level_.index_from_patient, m, level_.arm);
        const projector::View view = projector::view_of(level_.h(), level_.w(), placed.numbers.data());
        if (placed.axis != level_.axis || !projector::served(view, placed.numbers.data(), level_.volume)) throw NotServed{};
        const auto apart = static_cast<std::ptrdiff_t>(level_.pixels());
        const projector::Out out{moving_->p, slopes, 0, apart};
        const int h = level_.h(), w = level_.w(), band = 16;  // halves of what is shared otherwise: a helper comes late
        const std::size_t own = projector::patch_scratch(w, band);
        const int crew = static_cast<double>(h) * w * level_.volume.nz < 2e5 ? 1 : threads_;  // 0.1 ms: not worth it
        projector::Buffer scratch(static_cast<std::size_t>(crew) * own);
        projector::Crew::run(crew, {projector::parts(h, band)}, [&](int, int part, int who) {
            const int first = part * band, end = std::min(h, first + band);
            path_.patches(level_.volume, view, out, first, end, scratch.p + static_cast<std::size_t>(who) * own);
            if (slopes && level_.last)
                for (int y = first; y < end; ++y)
                    correlation::intrinsics_row(slopes + static_cast<std::ptrdiff_t>(y) * w, apart, w, view.sod,
                                                view.pu / view.sdd, view.pv / view.sdd, static_cast<float>(level_.arm.cu),
                                                (static_cast<float>(y) - static_cast<float>(level_.arm.cv)) * view.pv / view.sdd);
        });
        ++renders;
    }

    // The pose's part of the normal equations.
    projector::Fit equations() const {
        projector::Fit out;
        const auto& r = likeness->result;
        for (int i = 0; i < 6; ++i) {
            out.gradient[i] = r.gradient[i];
            for (int j = 0; j < 6; ++j) out.hessian[i][j] = r.hessian[static_cast<std::size_t>(i) * level_.columns() + j];
        }
        return out;
    }

    Kept keep() {
        Kept out{*likeness, std::move(moving_), slopes_};
        moving_ = pixels(level_.pixels());
        return out;
    }

    void restore(Kept kept) { likeness.emplace(std::move(kept.likeness)), moving_ = std::move(kept.moving), slopes_ = kept.slopes; }
};

}  // namespace descent
