// SPDX-License-Identifier: Apache-2.0
// The state moved along the flow, row by row (see moved.cpp).
#pragma once

#include "rows.hpp"

namespace fluoronav {

struct Picture {  // mean and variance of a state
    const float *m, *v;
    int rows, cols;
};

// px: (rows, columns, 2) pixels (x, y) that a cell of `cell` x `cell` pixels moved since the last frame; trusted: 0, 1.
struct Flow {
    const float* px = nullptr;
    const std::uint8_t* trusted = nullptr;
    int rows = 0, cols = 0, cell = 1;
};

class Mover {
  public:
    Mover(const Picture& picture, const Flow& flow, float price)
        : picture_(picture), flow_(flow), price_(price), dx_(picture.cols), dy_(picture.cols), tx_(picture.cols),
          ty_(picture.cols) {
        for (auto& row : full_) row.resize(2 * std::size_t(picture.cols));
    }
    bool moves(int y) const;               // whether anything is trusted in row y
    void row(int y, float* m, float* v);  // row y of the moved state

  private:
    const std::uint8_t* trusted_at(int y) const {
        return flow_.trusted + std::size_t(std::min(y / flow_.cell, flow_.rows - 1)) * flow_.cols;
    }
    Picture picture_;
    Flow flow_;
    float price_;
    std::vector<float> full_[2];  // two rows of cells at full resolution, even and odd
    std::vector<int> dx_, dy_;    // places of a row: whole pixels and fractions
    std::vector<float> tx_, ty_;
    int spread_[2] = {-1, -1};
};

// The better hypothesis of every pixel, row by row: rows are moved one after the other, and row y is chosen when row
// y + 2 (or the last) has moved.
class Followed {
  public:
    Followed(Scratch& scratch, const float* y, const Picture& state, const Flow& flow, float frame, float price);
    void move(int y);
    bool choose(int y, float* m, float* v);  // false where nothing moved and the state stands; m and v are untouched then

  private:
    const float* y_;
    Picture state_;
    float frame_;
    Mover mover_;
    Ring<float> m_, v_, worse_;
    bool moved_[8] = {};
    float *vertical_, *mean_;
};

// The better hypothesis of every pixel of a picture.
void followed(const float* y, const Picture& state, const Flow& flow, float frame, float price, float* m, float* v);

}  // namespace fluoronav
