// SPDX-License-Identifier: Apache-2.0
// Rows of a picture shared between threads. Every pixel is computed by the same sums whoever computes it, so the
// number of threads changes speed, never bits.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace fluoronav {

// A few threads that wait for bands of rows; the caller takes bands too. One job at a time: a second caller (another
// chain in another thread) does its own rows alone instead of waiting. A thread that a busy machine does not let run
// leaves its bands to the others.
class Team {
  public:
    static Team& one() {
        static Team* team = new Team;  // never destroyed: its threads may outlive the module
        return *team;
    }
    void size(int threads) { wanted_ = std::max(1, threads); }
    int size() const { return wanted_; }

    template <class Work>  // work(first row, last row + 1)
    void rows(int count, int least, Work&& work) {
        const int threads = wanted_, bands = std::min(kBands * threads, std::max(1, count / least));
        std::unique_lock<std::mutex> busy(busy_, std::try_to_lock);
        if (threads == 1 || bands == 1 || !busy.owns_lock()) return work(0, count);
        grow(threads - 1);
        const std::function<void(int)> band = [&](int k) {
            work(int(std::int64_t(count) * k / bands), int(std::int64_t(count) * (k + 1) / bands));
        };
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            band_ = &band, bands_ = bands, helpers_ = threads - 1, ++round_;
            next_.store(0, std::memory_order_relaxed);
        }
        start_.notify_all();
        take(band, bands);
        std::unique_lock<std::mutex> lock(mutex_);
        helpers_ = 0;  // who has not begun by now finds nothing left
        if (inside_ == 0) return;
        lock.unlock();
        briefly([&] { return inside_.load() == 0; });
        lock.lock();
        done_.wait(lock, [&] { return inside_ == 0; });
    }

  private:
    static constexpr int kBands = 2;  // a thread: what is over when one is late is half of its share

    void grow(int members) {
        if (process_ != getpid()) process_ = getpid(), members_ = 0;  // threads do not survive a fork
        for (; members_ < members; ++members_) std::thread(&Team::serve, this, members_, round_.load()).detach();
    }
    void take(const std::function<void(int)>& band, int bands) {
        for (int k; (k = next_.fetch_add(1, std::memory_order_relaxed)) < bands;) band(k);
    }
    // Looks again and again for some 50 us before a thread goes to sleep: the next band of work is often that near, and
    // waking a thread takes half as long.
    template <class Done>
    static void briefly(Done&& done) {
        const auto until = std::chrono::steady_clock::now() + std::chrono::microseconds(50);
        while (!done() && std::chrono::steady_clock::now() < until) pause();
    }
    static void pause() {
#if defined(__x86_64__) && defined(__GNUC__)
        __builtin_ia32_pause();
#endif
    }
    void serve(int me, unsigned long seen) {
        std::unique_lock<std::mutex> lock(mutex_);
        for (;;) {
            lock.unlock();
            briefly([&] { return round_.load() != seen; });
            lock.lock();
            start_.wait(lock, [&] { return round_ != seen; });
            seen = round_;
            if (me >= helpers_) continue;
            const std::function<void(int)>* band = band_;
            const int bands = bands_;
            ++inside_;
            lock.unlock();
            take(*band, bands);
            lock.lock();
            if (--inside_ == 0) done_.notify_one();
        }
    }
    std::mutex busy_, mutex_;
    std::condition_variable start_, done_;
    const std::function<void(int)>* band_ = nullptr;
    std::atomic<int> next_{0};
    std::atomic<int> inside_{0};
    std::atomic<unsigned long> round_{0};
    int wanted_ = 1, members_ = 0, bands_ = 0, helpers_ = 0, process_ = 0;
};

// `least`: rows that are worth a band of their own.
template <class Work>
void each_row(int count, Work&& work, int least = 32) {
    Team::one().rows(count, least, std::forward<Work>(work));
}

}  // namespace fluoronav
