/* realloc leaves an object where it is while that wastes less than half of it, and moves pages instead of bytes where
 * the object has a mapping of its own. Argument: ordinary, hardened or classic. */
#include "check.h"
#include <malloc.h>

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
