// new, delete, containers, exceptions and thread-local objects in many threads, objects handed between them.
#include "check.h"
#include <atomic>
#include <condition_variable>
#include <deque>
#include <iostream>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

static std::mutex lock;
static std::condition_variable ready;
static std::deque<std::unique_ptr<std::string>> queue;
static std::atomic<long> received, total;

thread_local std::map<int, std::string> own;

static void produce(int seed) {
    for (int i = 0; i < 20000; i++) {
        auto text = std::make_unique<std::string>(static_cast<size_t>((i * 31 + seed) % 700), 'p');
        own[i % 100] = *text;
        if (i % 1000 == 7) {
            try {
                throw std::runtime_error("thrown " + *text);
            } catch (const std::exception &error) {
                total += static_cast<long>(strlen(error.what()));
            }
        }
        std::lock_guard<std::mutex> guard(lock);
        queue.push_back(std::move(text));
        ready.notify_one();
    }
}

static void consume() {
    for (;;) {
        std::unique_ptr<std::string> text;
        {
            std::unique_lock<std::mutex> guard(lock);
            ready.wait(guard, [] { return !queue.empty(); });
            text = std::move(queue.front());
            queue.pop_front();
        }
        if (text == nullptr) {
            return;
        }
        for (char c : *text) {
            CHECK(c == 'p');
        }
        received += 1;
        total += static_cast<long>(text->size());
    }
}

int main() {
    std::vector<std::thread> producers, consumers;
    for (int i = 0; i < 4; i++) {
        producers.emplace_back(produce, i);
        consumers.emplace_back(consume);
    }
    for (auto &thread : producers) {
        thread.join();
    }
    {
        std::lock_guard<std::mutex> guard(lock);
        for (int i = 0; i < 4; i++) {
            queue.push_back(nullptr);
        }
        ready.notify_all();
    }
    for (auto &thread : consumers) {
        thread.join();
    }
    std::cout << received << " objects, " << total << " bytes\n";
    return received == 80000 ? 0 : 1;
}
