// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "arrays.hpp"

namespace fluoronav {

void bind_stated(nb::module_& module);  // the kernels of stated.cpp

}  // namespace fluoronav
