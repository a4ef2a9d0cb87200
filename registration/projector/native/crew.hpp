// SPDX-License-Identifier: Apache-2.0
// Who does the work? Threads that wait between projections, and the caller, who waits for none that has not begun.
//
// Starting threads costs as much as the projection of a small picture, and on a busy machine a thread may not run for
// milliseconds. So work is cut into parts that anyone takes one after the other; the caller takes them too, and only
// waits for parts that others are at. Each part writes its own pixels: who did it, and in which order, changes no bit.
#pragma once
#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace projector {

class Crew {
public:
    // One after the other: every part of a stage is done before the next stage begins. work(stage, part, who), who < threads.
    using Work = std::function<void(int, int, int)>;

    static void run(int threads, std::vector<int> parts, const Work& work) {
        if (threads <= 1) {
            for (std::size_t s = 0; s < parts.size(); ++s)
                for (int p = 0; p < parts[s]; ++p) work(static_cast<int>(s), p, 0);
            return;
        }
        crew().shared(threads, std::move(parts), work);
    }

private:
    struct Job {
        const Work* work;
        std::vector<int> parts;
        std::unique_ptr<std::atomic<int>[]> next, done;
        std::atomic<int> who{1};
        int threads;

        void help(int me) {
            for (std::size_t s = 0; s < parts.size(); ++s) {
                for (int p; (p = next[s].fetch_add(1)) < parts[s];) {
                    (*work)(static_cast<int>(s), p, me);
                    done[s].fetch_add(1, std::memory_order_release);
                }
                for (int spins = 0; done[s].load(std::memory_order_acquire) < parts[s]; ++spins)
                    if (spins > 1000) std::this_thread::yield();
            }
        }
    };

    static Crew& crew() {
        static Crew* kept = new Crew;  // never destroyed: its threads wait until the process ends
        return *kept;
    }

    void shared(int threads, std::vector<int> parts, const Work& work) {
        const auto job = std::make_shared<Job>();
        job->work = &work, job->threads = threads;
        job->next.reset(new std::atomic<int>[parts.size()]), job->done.reset(new std::atomic<int>[parts.size()]);
        for (std::size_t s = 0; s < parts.size(); ++s) job->next[s] = 0, job->done[s] = 0;
        job->parts = std::move(parts);
        {
            const std::lock_guard<std::mutex> guard(lock_);
            while (hired_ < std::min(threads - 1, 63)) std::thread(&Crew::wait, this).detach(), ++hired_;
            jobs_.push_back(job), posted_.fetch_add(1, std::memory_order_release);
        }
        wanted_.notify_all();
        job->help(0);
        const std::lock_guard<std::mutex> guard(lock_);
        jobs_.erase(std::remove(jobs_.begin(), jobs_.end(), job), jobs_.end());
    }

    void wait() {
        std::unique_lock<std::mutex> guard(lock_);
        for (;;) {
            std::shared_ptr<Job> job;
            int me = 0;
            for (const auto& j : jobs_)
                if (j->who.load() < j->threads) {
                    job = j, me = j->who.fetch_add(1);
                    break;
                }
            if (!job) {
                const unsigned seen = posted_.load(std::memory_order_relaxed);
                if (!watched(guard, seen)) wanted_.wait(guard, [&] { return posted_.load(std::memory_order_relaxed) != seen; });
                continue;
            }
            guard.unlock();
            job->help(me);  // finds nothing to do, and touches nothing, where the caller has finished
            guard.lock();
        }
    }

    // Whether more is posted within a moment: one projection follows another, and waking up takes half as long as a small one.
    bool watched(std::unique_lock<std::mutex>& guard, unsigned seen) {
        guard.unlock();
        const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(MOMENT_US);
        bool more = false;
        while (!(more = posted_.load(std::memory_order_acquire) != seen) && std::chrono::steady_clock::now() < end)
            std::this_thread::yield();
        guard.lock();
        return more;
    }

    static constexpr int MOMENT_US = 250;
    std::mutex lock_;
    std::condition_variable wanted_;
    std::vector<std::shared_ptr<Job>> jobs_;
    std::atomic<unsigned> posted_{0};
    int hired_ = 0;
};

}  // namespace projector
