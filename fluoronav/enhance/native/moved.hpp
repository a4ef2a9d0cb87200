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
        : picture_(picture), flow_(flow), price_(price), px_(picture.cols), py_(picture.cols) {
        for (auto& row : full_) row.resize(2 * std::size_t(picture.cols));
    }
    // Row y of the moved state; false where nothing is trusted and it is the state itself.
    bool row(int y, float* m, float* v);

  private:
    Picture picture_;
    Flow flow_;
    float price_;
    std::vector<float> full_[2], px_, py_;  // two rows of cells at full resolution, even and odd; places of a row
    int spread_[2] = {-1, -1};
};

// How much worse the second hypothesis explains a frame, in units of expected variance.
void worse_row(const float* y, const float* m0, const float* v0, const float* m1, const float* v1, float frame, int cols,
               float* out);
void chosen_row(const float* worse, const float* m0, const float* v0, const float* m1, const float* v1, int cols,
                float* m, float* v);

// The better hypothesis of every pixel of a picture.
void followed(const float* y, const Picture& state, const Flow& flow, float frame, float price, float* m, float* v);

}  // namespace fluoronav
