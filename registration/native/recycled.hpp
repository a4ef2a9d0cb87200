// SPDX-License-Identifier: Apache-2.0
// Memory of whole pictures, kept by each thread for its next one. The system hands out and takes back large blocks page
// by page: for the dozen of pictures that a detection passes through that costs 6 ms, a third of the whole.
#pragma once

#include <cstddef>
#include <new>
#include <utility>
#include <vector>

namespace vessels {

class Shelf {
  public:
    static Shelf& mine() {
        static thread_local Shelf shelf;
        return shelf;
    }
    void* take(std::size_t bytes) {
        for (std::size_t k = 0; k < kept_.size(); ++k)
            if (kept_[k].first == bytes) {
                void* out = kept_[k].second;
                kept_.erase(kept_.begin() + static_cast<std::ptrdiff_t>(k));
                return out;
            }
        return ::operator new(bytes);
    }
    void put(void* block, std::size_t bytes) {
        if (kept_.size() == MOST) {  // another size of picture came: the oldest is of no use any more
            ::operator delete(kept_.front().second);
            kept_.erase(kept_.begin());
        }
        kept_.emplace_back(bytes, block);
    }
    ~Shelf() {
        for (auto& block : kept_) ::operator delete(block.second);
    }

  private:
    static constexpr std::size_t MOST = 24;
    std::vector<std::pair<std::size_t, void*>> kept_;
};

// For what lives within one call only: a block must go back on the thread that took it.
template <class T> struct Recycled {
    using value_type = T;
    Recycled() = default;
    template <class U> Recycled(const Recycled<U>&) {}
    T* allocate(std::size_t n) { return static_cast<T*>(Shelf::mine().take(n * sizeof(T))); }
    void deallocate(T* block, std::size_t n) { Shelf::mine().put(block, n * sizeof(T)); }
    friend bool operator==(const Recycled&, const Recycled&) { return true; }
    friend bool operator!=(const Recycled&, const Recycled&) { return false; }
};

template <class T> using Large = std::vector<T, Recycled<T>>;

}  // namespace vessels
