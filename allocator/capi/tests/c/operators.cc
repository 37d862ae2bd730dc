// Every operator new and delete, and what happens when there is no memory: new-handler, bad_alloc, null.
#include "check.h"
#include <new>
#include <memory>
#include <string>
#include <vector>

static int handler_calls;
static void give_up() {
    if (++handler_calls == 3) {
        std::set_new_handler(nullptr);
    }
}

template <typename Call> static void throws(Call call) {
    bool caught = false;
    try {
        opaque_pointer(call());
    } catch (const std::bad_alloc &) {
        caught = true;
    }
    CHECK(caught);
}

struct Guard {
    int *count;
    ~Guard() { ++*count; }
};

static int unwound;
static __attribute__((noinline)) void *nested(size_t size, int depth) {
    Guard guard{&unwound};
    std::string local(100, 'x'); // destroyed while the exception passes
    if (depth == 0) {
        return ::operator new(size);
    }
    void *p = nested(size, depth - 1);
    opaque_pointer(&local);
    return p;
}

struct alignas(128) Wide {
    char bytes[128];
};

int main() {
    const size_t impossible = opaque(SIZE_MAX / 2 - 100);
    const auto wide = std::align_val_t(256);

    ::operator delete(::operator new(10));
    ::operator delete[](::operator new[](10));
    ::operator delete(::operator new(10), size_t(10));
    ::operator delete[](::operator new[](2000), size_t(2000));
    ::operator delete(::operator new(10, std::nothrow), std::nothrow);
    ::operator delete[](::operator new[](10, std::nothrow), std::nothrow);
    for (size_t size : {size_t(0), size_t(1), size_t(300), size_t(5000), size_t(300000), size_t(3) << 20}) {
        void *a = ::operator new(size, wide), *b = ::operator new[](size, wide);
        void *c = ::operator new(size, wide, std::nothrow), *d = ::operator new[](size, wide, std::nothrow);
        void *e = ::operator new(size, wide), *f = ::operator new[](size, wide);
        for (void *p : {a, b, c, d, e, f}) {
            CHECK(p != nullptr && reinterpret_cast<uintptr_t>(p) % 256 == 0);
            memset(p, 7, size);
        }
        ::operator delete(a, wide);
        ::operator delete[](b, wide);
        ::operator delete(c, wide, std::nothrow);
        ::operator delete[](d, wide, std::nothrow);
        ::operator delete(e, size, wide);
        ::operator delete[](f, size, wide);
    }
    void *zero = ::operator new(opaque(0)), *other = ::operator new(opaque(0));
    CHECK(zero != nullptr && other != nullptr && zero != other);
    ::operator delete(zero);
    ::operator delete(other);
    ::operator delete(nullptr);
    ::operator delete(nullptr, size_t(8));
    ::operator delete[](nullptr, wide);

    throws([&] { return ::operator new(impossible); });
    throws([&] { return ::operator new[](impossible); });
    throws([&] { return ::operator new(impossible, wide); });
    throws([&] { return ::operator new[](impossible, wide); });
    CHECK(::operator new(impossible, std::nothrow) == nullptr);
    CHECK(::operator new[](impossible, std::nothrow) == nullptr);
    CHECK(::operator new(impossible, wide, std::nothrow) == nullptr);
    CHECK(::operator new[](impossible, wide, std::nothrow) == nullptr);

    /* Sizes that come out as 0 when they are rounded up to an alignment. */
    for (size_t less : {size_t(0), size_t(10), size_t(63)}) {
        const size_t size = opaque(SIZE_MAX - less);
        throws([&] { return ::operator new(size); });
        throws([&] { return ::operator new[](size); });
        CHECK(::operator new(size, std::nothrow) == nullptr);
        CHECK(::operator new[](size, std::nothrow) == nullptr);
        for (auto align : {std::align_val_t(32), std::align_val_t(64), std::align_val_t(4096)}) {
            throws([&] { return ::operator new(size, align); });
            throws([&] { return ::operator new[](size, align); });
            CHECK(::operator new(size, align, std::nothrow) == nullptr);
            CHECK(::operator new[](size, align, std::nothrow) == nullptr);
        }
    }

    std::set_new_handler(give_up);
    throws([&] { return ::operator new(impossible); });
    CHECK(handler_calls == 3);
    handler_calls = 0;
    std::set_new_handler(give_up);
    CHECK(::operator new(impossible, std::nothrow) == nullptr);
    CHECK(handler_calls == 3);

    throws([&] { return nested(impossible, 20); });
    CHECK(unwound == 21);

    auto objects = std::make_unique<Wide[]>(33);
    CHECK(reinterpret_cast<uintptr_t>(objects.get()) % 128 == 0);
    std::vector<std::string> words;
    for (int i = 0; i < 10000; i++) {
        words.emplace_back(i % 300, 'a');
    }
    CHECK(words[299].size() == 299);
    return 0;
}
