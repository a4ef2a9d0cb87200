// SPDX-License-Identifier: Apache-2.0
// Rows of a picture shared between threads. Every pixel is computed by the same sums whoever computes it, so the
// number of threads changes speed, never bits.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace fluoronav {

// A few threads that wait for bands of rows; the caller takes a band too. One job at a time: a second caller
// (another chain in another thread) does its own rows alone instead of waiting.
class Team {
  public:
    static Team& one() {
        static Team* team = new Team;  // never destroyed: its threads may outlive the module
        return *team;
    }
    void size(int threads) { wanted_ = std::max(1, threads); }
    int size() const { return wanted_; }

    template <class Work>  // work(first row, last row + 1)
    void rows(int count, Work&& work) {
        const int bands = std::min(wanted_, std::max(1, count / 32));
        std::unique_lock<std::mutex> busy(busy_, std::try_to_lock);
        if (bands == 1 || !busy.owns_lock()) return work(0, count);
        grow(bands - 1);
        const std::function<void(int)> band = [&](int k) { work(count * k / bands, count * (k + 1) / bands); };
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            band_ = &band, bands_ = bands - 1, left_ = bands - 1, ++round_;
        }
        start_.notify_all();
        band(bands - 1);
        std::unique_lock<std::mutex> lock(mutex_);
        done_.wait(lock, [&] { return left_ == 0; });
    }

  private:
    void grow(int members) {
        if (process_ != getpid()) process_ = getpid(), members_ = 0;  // threads do not survive a fork
        for (; members_ < members; ++members_) std::thread(&Team::serve, this, members_, round_).detach();
    }
    void serve(int me, unsigned long seen) {
        std::unique_lock<std::mutex> lock(mutex_);
        for (;;) {
            start_.wait(lock, [&] { return round_ != seen; });
            seen = round_;
            if (me >= bands_) continue;
            const std::function<void(int)>* band = band_;
            lock.unlock();
            (*band)(me);
            lock.lock();
            if (--left_ == 0) done_.notify_one();
        }
    }
    std::mutex busy_, mutex_;
    std::condition_variable start_, done_;
    const std::function<void(int)>* band_ = nullptr;
    int wanted_ = 1, members_ = 0, bands_ = 0, left_ = 0, process_ = 0;
    unsigned long round_ = 0;
};

template <class Work>
void each_row(int count, Work&& work) {
    Team::one().rows(count, std::forward<Work>(work));
}

}  // namespace fluoronav
