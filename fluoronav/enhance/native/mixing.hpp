// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "arrays.hpp"

namespace fluoronav {

void bind_mixing(nb::module_& module);  // the kernels of mixing.cpp

}  // namespace fluoronav
