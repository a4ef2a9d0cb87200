// SPDX-License-Identifier: Apache-2.0
// Where does a pose come to rest? Hands the descent of descent.cpp to the Python module.
#pragma once
#include <nanobind/nanobind.h>

namespace descent {

void add(nanobind::module_& m);

}  // namespace descent
