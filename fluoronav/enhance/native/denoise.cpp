// SPDX-License-Identifier: Apache-2.0
// The classical denoiser, in the variance-stabilized domain (noise of a frame has variance R, 1 unless it is noisier).
//
// In time, a Kalman filter a pixel. State m, variance v (in units of the frame's). The innovation (y - m) / sqrt(R + v)
//   is blurred by a 3x3 binomial and averaged along twelve lines of 11 pixels; the largest, of a pixel or neighbors, is
//   the evidence of change z. Evidence opens the gate g, the gate gives the state back its ignorance,
//   v' = (1 - g) v + g kUnknown R, and then a = max(v' / (v' + R), floor / R), m += a (y - m),
//   v = (1 - a)^2 v' + a^2 R. A line moves: along it z is 3 to 4 times what a single pixel shows, so a wire of half the
//   noise's height a pixel is seen in the frame it moves in.
// In space, m = near + detail with a 5x5 binomial mean; detail is kept where it stands along a line (or alone) above
//   what variance v explains, or beside such a line; `least` of it stays everywhere.
// Variance of the answer: v times `left` where noise alone kept detail, up to v where structure made it keep all of it;
//   from the mean share kept by some 10x10 pixels, because a pixel keeps its detail where its own noise happens to be
//   large. A smooth answer needs no full resolution: halves, their 5x5 means, linear between them.
//
// One walk down a band of rows, stage after stage a few rows behind each other; about 0.7 MB a band at 1024 columns.
#include "denoise.hpp"

#include "team.hpp"

namespace fluoronav {

// A stage makes the rows from `beyond` above a band to `beyond` below it, `behind` the first row of the frame. What
// comes after it decides how far: 5x5 means look 2 rows, lines 5, neighbors 1, and what spreads the share kept 6.
struct Stage { int behind, beyond; };
constexpr Stage kSpread{23, 0}, kKept{17, 6}, kDetailed{16, 7}, kSplit{11, 12}, kUpdated{9, 14}, kLined{8, 15},
    kSoftened{3, 20}, kInnovated{2, 21};
constexpr int kAround = 2;  // halves on each side of the one whose share is wanted

FLUORONAV_LOOP
static void widened_steps(const Short* a, const Short* b, const Short* c, int cols, Short* __restrict out) {
    widened_row(a, b, c, cols, out);
}

FLUORONAV_LOOP
static void magnitude_row(Short* __restrict row, int cols) {
    for (int x = 0; x < cols; ++x) row[x] = Short(row[x] < 0 ? -row[x] : row[x]);
}

struct Before { const float *y, *m, *v; };  // one row
struct After { float *m, *v; };

FLUORONAV_LOOP
static void update_row(const Before& before, const Short* __restrict strength, const Rules& rules, int cols,
                       const After& after) {
    const float *__restrict y = before.y, *__restrict m = before.m, *__restrict v = before.v;
    float *__restrict m_out = after.m, *__restrict v_out = after.v;
    const float frame = rules.frame, scale = rules.evidence_scale * kEvidenceUnit, least = rules.floor / frame;
    const float low = rules.gate_low, inverse = 1 / (rules.gate_high - low), unknown = kUnknown * frame;
    for (int x = 0; x < cols; ++x) {
        const float g = smoothstep(float(strength[x]) * scale, low, inverse);
        const float ignorance = (1 - g) * v[x] + g * unknown;
        float a = ignorance / (ignorance + frame);
        a = a > least ? a : least;
        m_out[x] = m[x] + a * (y[x] - m[x]);
        v_out[x] = (1 - a) * (1 - a) * ignorance + a * a * frame;
    }
}

struct Around { const float *m, *v, *base; };  // one row

FLUORONAV_LOOP
static void keep_row(const Around& row, const Short* __restrict strength, const Rules& rules, int cols,
                     float* __restrict clean, float* __restrict kept) {
    const float *__restrict m = row.m, *__restrict v = row.v, *__restrict base = row.base;
    const float line_scale = rules.line_scale * kDetailUnit, point_scale = rules.point_scale;
    const float low = rules.detail_low, high = rules.detail_high, least = rules.detail_least;
    const float line_inverse = 1 / (high - low), point_inverse = 1 / (high + 1 - low);
    for (int x = 0; x < cols; ++x) {
        const float inverse = 1.0f / std::sqrt(v[x]), d = m[x] - base[x];
        const float s_line = smoothstep(float(strength[x]) * line_scale * inverse, low, line_inverse);
        const float s_point = smoothstep(std::fabs(d) * point_scale * inverse, low, point_inverse);
        float s = s_line > s_point ? s_line : s_point;
        s = s > least ? s : least;
        clean[x] = base[x] + s * d;
        kept[x] = s;
    }
}

// Mean of 2x2 pixels of two rows (the last column alone where their number is odd); t is scratch.
FLUORONAV_LOOP
static void halve_row(const float* __restrict a, const float* __restrict b, int cols, float* __restrict t,
                      float* __restrict out) {
    for (int x = 0; x < cols; ++x) t[x] = a[x] + b[x];
    const int half = cols / 2;
    for (int x = 0; x < half; ++x) out[x] = 0.25f * (t[2 * x] + t[2 * x + 1]);
    if (cols % 2) out[half] = 0.5f * t[cols - 1];
}

// Share of the variance left, of the mean of 5x5 halves; `line` has two values more on either side.
FLUORONAV_LOOP
static void left_row(const float* const* near, int halves, float kept, float left, float* __restrict line,
                     float* __restrict out) {
    const float *a = near[0], *b = near[1], *c = near[2], *d = near[3], *e = near[4];
    for (int x = 0; x < halves + 2 * kAround; ++x)
        line[x] = (a[x - kAround] + e[x - kAround]) + (b[x - kAround] + d[x - kAround]) + c[x - kAround];
    const float scale = 1.0f / std::max(1.0f - kept, 1e-3f);
    for (int x = 0; x < halves; ++x) {
        const float sum = (line[x] + line[x + 4]) + (line[x + 1] + line[x + 3]) + line[x + 2];
        float structure = (sum * 0.04f - kept) * scale;
        structure = structure < 0 ? 0 : (structure > 1 ? 1 : structure);
        out[x] = left + (1 - left) * structure;
    }
}

// Variance of one row: halves a and b are mixed by `t` and stand between the pixels; `line` is scratch from -1 on.
FLUORONAV_LOOP
static void spread_row(const float* a, const float* b, float t, const float* __restrict v, int cols,
                       float* __restrict line, float* __restrict out) {
    const int half = cols / 2;
    for (int x = -1; x < half + 2; ++x) line[x] = (1 - t) * a[x] + t * b[x];
    for (int x = 0; x < half; ++x) {
        out[2 * x] = v[2 * x] * (0.25f * line[x - 1] + 0.75f * line[x]);
        out[2 * x + 1] = v[2 * x + 1] * (0.75f * line[x] + 0.25f * line[x + 1]);
    }
    if (cols % 2) out[cols - 1] = v[cols - 1] * (0.25f * line[half - 1] + 0.75f * line[half]);
}

namespace {

// One walk down a band of rows.
class Walk {
  public:
    Walk(const Picture& state, const Flow* flow, const Rules& rules, const Buffers& to)
        : state_(state), flow_(flow), rules_(rules), to_(to), rows_(state.rows), cols_(state.cols),
          high_((rows_ + 1) / 2), wide_((cols_ + 1) / 2),
          followed_(scratch_, to.y, state, flow ? *flow : Flow{}, rules.frame, rules.price),
          m0_(scratch_, 8, rows_, cols_), v0_(scratch_, 8, rows_, cols_), m_(scratch_, 16, rows_, cols_),
          v_(scratch_, 16, rows_, cols_), base_(scratch_, 8, rows_, cols_), kept_(scratch_, 2, rows_, cols_),
          halves_(scratch_, 8, high_, wide_), left_(scratch_, 4, high_, wide_), innovation_(scratch_, 4, rows_, cols_),
          soft_(scratch_, 16, rows_, cols_), change_(scratch_, 4, rows_, cols_), detail_(scratch_, 16, rows_, cols_),
          along_(scratch_, 4, rows_, cols_), steps_(scratch_.take<Short>(cols_ + 2 * kPad)),
          floats_(scratch_.take<float>(cols_ + 2 * kPad)), more_(scratch_.take<float>(cols_ + 2 * kPad)) {}

    void band(int r0, int r1) {
        int next = std::max(0, r0 - kInnovated.beyond - 2), half = std::max(0, r0 / 2 - 1);
        for (int t = std::max(0, r0 - kInnovated.beyond) + kInnovated.behind; t < r1 + kSpread.behind; ++t) {
            const auto due = [&](const Stage& s, int& y) {
                y = t - s.behind;
                return y >= std::max(0, r0 - s.beyond) && y < std::min(rows_, r1 + s.beyond);
            };
            int y;
            if (to_.y && due(kInnovated, y)) {
                for (; flow_ && next < std::min(rows_, y + 3); ++next) followed_.move(next);
                innovate(y);
            }
            if (to_.y && due(kSoftened, y)) soften(y);
            if (to_.y && due(kLined, y)) line(y);
            if (due(kUpdated, y)) update(y, y >= r0 && y < r1);
            if (due(kSplit, y)) split(y);
            if (due(kDetailed, y)) detail(y);
            if (due(kKept, y)) keep(y, y >= r0 && y < r1);
            for (; half < high_ && kKept.behind + 2 * (half + kAround) + 1 <= t; ++half) leave(half);
            if (due(kSpread, y)) spread(y);
        }
    }

  private:
    void innovate(int y) {
        stays_[y & 7] = !flow_ || !followed_.choose(y, m0_.row(y), v0_.row(y));
        innovation_row(to_.y + at(y), before_m(y), before_v(y), rules_.frame, cols_, innovation_.row(y));
        innovation_.repeat(y);
    }

    void soften(int y) {
        soft_row(innovation_.at(y - 1), innovation_.at(y), innovation_.at(y + 1), cols_, steps_, soft_.row(y));
        soft_.repeat(y);
    }

    void line(int y) { strongest(soft_, y, change_); }

    void update(int y, bool own) {
        if (to_.y) {
            widened_steps(change_.at(y - 1), change_.at(y), change_.at(y + 1), cols_, steps_);
            update_row({to_.y + at(y), before_m(y), before_v(y)}, steps_, rules_, cols_, {m_.row(y), v_.row(y)});
        } else {
            std::copy(state_.m + at(y), state_.m + at(y + 1), m_.row(y));
            std::copy(state_.v + at(y), state_.v + at(y + 1), v_.row(y));
        }
        if (own && to_.y) {
            std::copy(m_.row(y), m_.row(y) + cols_, to_.m + at(y));
            std::copy(v_.row(y), v_.row(y) + cols_, to_.v + at(y));
        }
        m_.repeat(y);
    }

    void split(int y) {
        const float* near[5];
        for (int k = 0; k < 5; ++k) near[k] = m_.at(y + k - 2);
        binomial_row(near, 1, cols_, floats_, base_.row(y));
        detail_row(m_.row(y), base_.row(y), cols_, detail_.row(y));
        detail_.repeat(y);
    }

    void detail(int y) { strongest(detail_, y, along_); }

    void keep(int y, bool own) {
        widened_steps(along_.at(y - 1), along_.at(y), along_.at(y + 1), cols_, steps_);
        keep_row({m_.row(y), v_.row(y), base_.row(y)}, steps_, rules_, cols_, own ? to_.clean + at(y) : more_,
                 kept_.row(y));
        if (own && to_.kept) std::copy(kept_.row(y), kept_.row(y) + cols_, to_.kept + at(y));
        if (y % 2 == 0 && y < rows_ - 1) return;
        halve_row(kept_.row(y - y % 2), kept_.row(y), cols_, floats_, halves_.row(y / 2));
        halves_.repeat(y / 2);
    }

    void leave(int half) {
        const float* near[2 * kAround + 1];
        for (int k = 0; k <= 2 * kAround; ++k) near[k] = halves_.at(half + k - kAround);
        left_row(near, wide_, rules_.kept, rules_.left, floats_, left_.row(half));
        left_.repeat(half);
    }

    void spread(int y) {
        const int below = (y + 1) / 2;  // the middle of the half `below` is not above the middle of the row
        spread_row(left_.at(below - 1), left_.at(below), y % 2 ? 0.25f : 0.75f, v_.row(y), cols_, more_ + 1,
                   to_.variance + at(y));
    }

    void strongest(const Ring<Short>& from, int y, Ring<Short>& to) {
        const Short* near[2 * kReach + 1];
        for (int k = 0; k <= 2 * kReach; ++k) near[k] = from.at(y + k - kReach);
        line_sums(near, cols_, to.row(y));
        magnitude_row(to.row(y), cols_);
        to.repeat(y);
    }

    std::size_t at(int y) const { return std::size_t(y) * cols_; }
    const float* before_m(int y) { return stays_[y & 7] ? state_.m + at(y) : m0_.row(y); }
    const float* before_v(int y) { return stays_[y & 7] ? state_.v + at(y) : v0_.row(y); }

    Scratch scratch_;
    const Picture state_;
    const Flow* flow_;
    const Rules& rules_;
    const Buffers& to_;
    const int rows_, cols_, high_, wide_;
    Followed followed_;
    bool stays_[8] = {};  // of rows: the state stayed where it was
    Ring<float> m0_, v0_, m_, v_, base_, kept_, halves_, left_;
    Ring<Short> innovation_, soft_, change_, detail_, along_;
    Short* steps_;
    float *floats_, *more_;
};

}  // namespace

void denoise(const Picture& state, const Flow* flow, const Rules& rules, const Buffers& to) {
    each_row(state.rows, [&](int r0, int r1) { Walk(state, flow, rules, to).band(r0, r1); });
}

}  // namespace fluoronav
