// SPDX-License-Identifier: Apache-2.0
// Thousands of poses in one call: hands its functions to the Python module.
#pragma once
#include <nanobind/nanobind.h>

namespace projector {

void add_batch(nanobind::module_& m);

}  // namespace projector
