/* realloc leaves an object where it is while that wastes less than half of it, and moves pages instead of bytes where
 * the object has a mapping of its own. Argument: ordinary, hardened or classic. */
#include "check.h"
#include <malloc.h>
#include <sys/mman.h>
#include <sys/resource.h>

static int is_classic, is_ordinary;

static unsigned char value_at(size_t at)
{
    return (unsigned char)(at * 7 + (at >> 12) + 1);
}

static void *filled(size_t size)
{
    unsigned char *p = malloc(opaque(size));
    CHECK(p != NULL);
    for (size_t at = 0; at < size; at++) {
        p[at] = value_at(at);
    }
    return p;
}

static void expect_bytes(const unsigned char *p, size_t size)
{
    for (size_t at = 0; at < size; at++) {
        CHECK(p[at] == value_at(at));
    }
}

/* Whether the object stays where it is; it keeps its first `kept` bytes. */
static int stays(void **p, size_t size, size_t kept)
{
    uintptr_t before = (uintptr_t)*p;
    void *after = realloc(*p, opaque(size));
    CHECK(after != NULL && malloc_usable_size(after) >= size);
    expect_bytes(after, kept < size ? kept : size);
    *p = after;
    return (uintptr_t)after == before;
}

static void growing_moves_no_bytes_of_a_huge_object(void)
{
    size_t size = (size_t)64 << 20;
    void *p = filled(size);
    long peak = status_kib("VmHWM:");
    CHECK(peak < status_kib("VmRSS:") + 4096);
    stays(&p, 2 * size, size);
    CHECK(status_kib("VmHWM:") < peak + 8192);
    free(p);
}

/* The program may divide a mapping: the kernel moves no pages of such a one. */
static void a_divided_mapping_keeps_its_bytes(void)
{
    size_t size = (size_t)8 << 20, page = 4096;
    unsigned char *p = filled(size);
    uintptr_t middle = ((uintptr_t)p + size / 2) & ~(uintptr_t)65535;
    CHECK(madvise((void *)middle, 16 * page, MADV_DONTFORK) == 0);
    void *after = p;
    stays(&after, 3 * size, size);
    free(after);
}

static void memory_for_what_is_asked_for_suffices_to_grow(void)
{
    size_t size = (size_t)100 << 20, grown = (size_t)110 << 20;
    unsigned char *p = malloc(opaque(size));
    CHECK(p != NULL);
    p[size - 1] = 7;
    struct rlimit before, limit;
    CHECK(getrlimit(RLIMIT_AS, &before) == 0);
    limit = before;
    limit.rlim_cur = ((rlim_t)status_kib("VmSize:") << 10) + ((rlim_t)12 << 20);
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
    unsigned char *after = realloc(p, opaque(grown));
    CHECK(setrlimit(RLIMIT_AS, &before) == 0);
    CHECK(after != NULL && after[size - 1] == 7);
    after[grown - 1] = 1;
    free(after);
}

/* It would have got room to grow on. */
static void one_ready_block_of_the_size_asked_for_suffices_to_grow(void)
{
    size_t size = 16384, grown = 18432;
    char *p = malloc(opaque(size)), *ready = malloc(opaque(grown));
    CHECK(p != NULL && ready != NULL && malloc_usable_size(p) + malloc_usable_size(p) / 4 > malloc_usable_size(ready));
    p[size - 1] = 7;
    struct rlimit before, limit;
    CHECK(getrlimit(RLIMIT_AS, &before) == 0);
    limit = before;
    limit.rlim_cur = (rlim_t)status_kib("VmSize:") << 10;
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
    void **all = NULL;
    /* The largest first, so that nothing larger is left. */
    const size_t others[] = {1 << 20, 1 << 18, 1 << 16, 1 << 15, grown, size};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        void **some = take_all(others[i]), **last = some;
        while (last != NULL && *last != NULL) {
            last = *last;
        }
        if (last != NULL) {
            *last = all;
            all = some;
        }
    }
    free(ready);
    p = realloc(p, opaque(grown));
    CHECK(setrlimit(RLIMIT_AS, &before) == 0);
    give_back(all);
    CHECK(p != NULL && p[size - 1] == 7);
    free(p);
}

static void what_fits_stays(size_t size)
{
    void *p = filled(size);
    CHECK(stays(&p, malloc_usable_size(p), size));
    free(p);
}

static void shrinking_below_half_gives_the_rest_back(size_t size)
{
    void *p = filled(size);
    size_t usable = malloc_usable_size(p);
    if (is_classic) { /* it is cut off where it is */
        CHECK(stays(&p, size / 3, size));
    } else {
        CHECK(stays(&p, size * 3 / 4, size));
        if (is_ordinary) { /* to the byte: in hardened builds nobody can ask how large a block is */
            CHECK(stays(&p, usable / 2, size * 3 / 4));
            CHECK(!stays(&p, usable / 2 - 1, usable / 2));
        } else {
            CHECK(!stays(&p, size / 3, size));
        }
    }
    CHECK(malloc_usable_size(p) < usable * 2 / 3);
    free(p);
}

static void shrinking_gives_pages_of_a_huge_object_back(void)
{
    size_t size = (size_t)64 << 20, small = 200000;
    void *p = filled(size);
    long resident = status_kib("VmRSS:");
    CHECK(stays(&p, size / 8, size));
    CHECK(status_kib("VmRSS:") < resident - (48 << 10));
    CHECK(malloc_usable_size(p) < size / 4);
    stays(&p, small, size / 8);
    CHECK(malloc_usable_size(p) < 2 * small);
    free(p);
}

int main(int count, char **arguments)
{
    static const size_t sizes[] = {100, 5000, 100000, 5 << 20};
    CHECK(count == 2);
    is_classic = strcmp(arguments[1], "classic") == 0;
    is_ordinary = strcmp(arguments[1], "ordinary") == 0;
    growing_moves_no_bytes_of_a_huge_object();
    a_divided_mapping_keeps_its_bytes();
    if (is_ordinary) {
        memory_for_what_is_asked_for_suffices_to_grow();
        one_ready_block_of_the_size_asked_for_suffices_to_grow();
    }
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        what_fits_stays(sizes[i]);
    }
    for (size_t i = 0; i < 3; i++) {
        shrinking_below_half_gives_the_rest_back(sizes[i]);
    }
    void *tiny = filled(56);
    CHECK(stays(&tiny, 1, 56)); /* nothing to gain */
    free(tiny);
    shrinking_gives_pages_of_a_huge_object_back();
    return 0;
}
