// SPDX-License-Identifier: Apache-2.0
// Arrays that come from numpy and go back to it.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

namespace fluoronav {

namespace nb = nanobind;

using In = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using In3 = nb::ndarray<const float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using Flags = nb::ndarray<const std::uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Table = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Out = nb::ndarray<nb::numpy, float, nb::ndim<2>>;
using Out3 = nb::ndarray<nb::numpy, float, nb::ndim<3>>;

// Buffers that were given back, by size: a fresh 4 MB costs a thousand page faults, as long as a kernel takes.
class Pool {
  public:
    using Buffer = std::vector<float>;
    Buffer* take(std::size_t n) {
        const std::lock_guard<std::mutex> lock(mutex_);
        for (std::size_t i = free_.size(); i-- > 0;)
            if (free_[i]->size() == n) {
                Buffer* found = free_[i].release();
                free_.erase(free_.begin() + std::ptrdiff_t(i));
                return found;
            }
        return new Buffer(n);
    }
    void give(Buffer* buffer) {
        const std::lock_guard<std::mutex> lock(mutex_);
        free_.emplace_back(buffer);
        if (free_.size() > kKept) free_.erase(free_.begin());
    }
    static Pool& one() {
        static Pool* pool = new Pool;  // never destroyed: arrays may outlive the module
        return *pool;
    }

  private:
    static constexpr std::size_t kKept = 20;  // what one frame of the chain has in flight
    std::mutex mutex_;
    std::vector<std::unique_ptr<Buffer>> free_;
};

inline nb::capsule owner_of(Pool::Buffer* buffer) {
    return nb::capsule(buffer, [](void* p) noexcept { Pool::one().give(static_cast<Pool::Buffer*>(p)); });
}

inline Out make(int rows, int cols) {
    Pool::Buffer* buffer = Pool::one().take(std::size_t(rows) * cols);
    return Out(buffer->data(), {std::size_t(rows), std::size_t(cols)}, owner_of(buffer));
}

inline Out3 make3(int channels, int rows, int cols) {
    Pool::Buffer* buffer = Pool::one().take(std::size_t(channels) * rows * cols);
    return Out3(buffer->data(), {std::size_t(channels), std::size_t(rows), std::size_t(cols)}, owner_of(buffer));
}

}  // namespace fluoronav
