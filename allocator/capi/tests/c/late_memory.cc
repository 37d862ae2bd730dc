// Objects that operator new got only after the new-handler had made room may be deleted by their sizes.
#include "check.h"
#include <initializer_list>
#include <new>
#include <sys/resource.h>

static struct rlimit unlimited;
static bool called;
static void make_room() {
    called = true;
    CHECK(setrlimit(RLIMIT_AS, &unlimited) == 0);
    std::set_new_handler(nullptr);
}

static void *held[1 << 20];

/* Takes all the memory there is for such objects, then gets one more. */
template <typename Quiet, typename Make> static void *last(Quiet quiet, Make make) {
    struct rlimit limit = unlimited;
    limit.rlim_cur = (rlim_t)status_kib("VmSize:") << 10;
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
    void **large = take_all(100000), **small = take_all(100);
    size_t count = 0;
    for (void *p; (p = quiet()) != nullptr; count++) {
        CHECK(count < sizeof held / sizeof *held);
        held[count] = p;
    }
    called = false;
    std::set_new_handler(make_room);
    void *p = make();
    CHECK(called && p != nullptr);
    for (size_t i = 0; i < count; i++) free(held[i]);
    give_back(small);
    give_back(large);
    return p;
}

int main() {
    CHECK(getrlimit(RLIMIT_AS, &unlimited) == 0);
    const std::nothrow_t &quiet = std::nothrow;
    const auto align = std::align_val_t(64);
    for (size_t size : {size_t(80), size_t(0), size_t(1), size_t(64), size_t(5000)}) {
        size = opaque(size);
        ::operator delete(last([&] { return ::operator new(size, quiet); }, [&] { return ::operator new(size); }), size);
        ::operator delete[](last([&] { return ::operator new[](size, quiet); },
                                 [&] { return ::operator new[](size); }), size);
        ::operator delete(last([&] { return ::operator new(size, align, quiet); },
                               [&] { return ::operator new(size, align); }), size, align);
        ::operator delete[](last([&] { return ::operator new[](size, align, quiet); },
                                 [&] { return ::operator new[](size, align); }), size, align);
    }
    return 0;
}
