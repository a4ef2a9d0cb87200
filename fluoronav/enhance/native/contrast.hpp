// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "arrays.hpp"

namespace fluoronav {

void bind_contrast(nb::module_& module);  // the kernel of contrast.cpp

}  // namespace fluoronav
