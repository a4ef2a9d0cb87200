// SPDX-License-Identifier: Apache-2.0
// Filters that the classical and the learned denoiser share, each over bands of rows.
#pragma once

#include "arrays.hpp"
#include "kernels.hpp"
#include "team.hpp"

namespace fluoronav {

void innovation(const float* y, const float* m, const float* v, float frame, Padded& raw);  // (y - m) / sqrt(frame + v)
void blur3(const Padded& in, Padded& out);                                                   // 3x3 binomial
void lines(const Padded& in, float* out);            // best of twelve line means, signed
void split(const float* m, Padded& detail, float* base);  // base: 5x5 binomial of m; detail = m - base
// |values|, or `share` of the largest of the four neighbors: the flanks of a line change with it
void widened(const float* values, int rows, int cols, float share, std::vector<float>& out);

}  // namespace fluoronav
