// SPDX-License-Identifier: Apache-2.0
// Where do results live? Buffers that are used again, and pictures in them handed to Python without a copy.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstddef>
#include <initializer_list>
#include <mutex>
#include <new>
#include <unordered_map>
#include <vector>

#include "path.hpp"

namespace projector {

namespace nb = nanobind;

// Buffers that are used again: fresh pages cost more than the projection of a small picture.
class Pool {
public:
    float* take(std::size_t n) {
        {
            const std::lock_guard<std::mutex> guard(lock_);
            for (std::size_t i = 0; i < free_.size(); ++i)
                if (size_[free_[i]] >= n && size_[free_[i]] <= 2 * n + 4096) {
                    float* p = free_[i];
                    free_.erase(free_.begin() + static_cast<std::ptrdiff_t>(i));
                    return p;
                }
        }
        float* p = static_cast<float*>(::operator new(n * sizeof(float), std::align_val_t(64)));
        const std::lock_guard<std::mutex> guard(lock_);
        size_[p] = n;
        return p;
    }
    void give(float* p) {
        const std::lock_guard<std::mutex> guard(lock_);
        free_.push_back(p);
        if (free_.size() > KEPT) {
            size_.erase(free_.front());
            ::operator delete(free_.front(), std::align_val_t(64));
            free_.erase(free_.begin());
        }
    }

private:
    static constexpr std::size_t KEPT = 32;
    std::mutex lock_;
    std::vector<float*> free_;
    std::unordered_map<float*, std::size_t> size_;
};

inline Pool& pool() {
    static Pool* kept = new Pool;  // never destroyed: arrays may outlive the module's statics
    return *kept;
}

struct Buffer {
    float* p;
    explicit Buffer(std::size_t n) : p(pool().take(n)) {}
    Buffer(const Buffer&) = delete;
    ~Buffer() { if (p) pool().give(p); }
    float* release() { float* out = p; p = nullptr; return out; }
};

inline nb::object array(Buffer& buffer, std::initializer_list<std::size_t> shape) {
    float* data = buffer.release();
    nb::capsule owner(data, [](void* p) noexcept { pool().give(static_cast<float*>(p)); });
    return nb::cast(nb::ndarray<nb::numpy, float>(data, shape.size(), shape.begin(), owner));
}

// A picture as a numpy array, alone or with its Jacobian.
struct Result {
    std::size_t rows, cols;
    Buffer image, jacobian;
    Result(int h, int w, bool with) : rows(static_cast<std::size_t>(h)), cols(static_cast<std::size_t>(w)),
                                      image(rows * cols), jacobian(with ? 6 * rows * cols : 1), with_(with) {}
    Out out() { return {image.p, with_ ? jacobian.p : nullptr, 0, static_cast<std::ptrdiff_t>(rows * cols)}; }
    nb::object object() {
        nb::object picture = array(image, {rows, cols});
        if (!with_) return picture;
        return nb::make_tuple(picture, array(jacobian, {6, rows, cols}));
    }

private:
    bool with_;
};

}  // namespace projector
