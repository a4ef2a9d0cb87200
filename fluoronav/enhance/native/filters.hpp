// SPDX-License-Identifier: Apache-2.0
// Filters of whole pictures that the learned denoiser and the calibration share.
#pragma once

#include "arrays.hpp"
#include "rows.hpp"

namespace fluoronav {

// Signed line mean of the blurred innovation over its standard deviation a pixel.
void evidence(const float* y, const float* m, const float* v, float frame, int rows, int cols, float* out);
// near: 5x5 binomial of m; along: best of twelve line means of m - near, signed; wide: 13x13 of near.
void parts(const float* m, int rows, int cols, float* near, float* along, float* wide);
// |values|, or the largest of the four neighbors: the flanks of a line change with it.
void widened(const float* values, int rows, int cols, float* out);

}  // namespace fluoronav
