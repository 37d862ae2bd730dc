/* C23, POSIX and glibc, to the letter: errno, zero sizes, PTRDIFF_MAX, overflow, alignment. */
#include "check.h"
#include <malloc.h>
#include <stdalign.h>
#include <stddef.h>

void free_sized(void *, size_t);
void free_aligned_sized(void *, size_t, size_t);
extern void cfree(void *);

#define UNTOUCHED 12345
#define FAILS(call)                                                                                          \
    do {                                                                                                     \
        errno = 0;                                                                                           \
        void *got = opaque_pointer(call);                                                                    \
        CHECK(got == NULL);                                                                                  \
        CHECK(errno == ENOMEM);                                                                              \
    } while (0)

static void success_keeps_errno(void)
{
    static const size_t sizes[] = {0, 1, 16, 1000, 1024, 1025, 8192, 40000, 131072, 600000, 1 << 20, 5 << 20, 64 << 20};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        errno = UNTOUCHED;
        char *p = malloc(opaque(sizes[i]));
        CHECK(p != NULL && errno == UNTOUCHED);
        char *q = calloc(1, opaque(sizes[i]));
        CHECK(q != NULL && errno == UNTOUCHED);
        p = realloc(p, opaque(sizes[i] * 2 + 1));
        CHECK(p != NULL && errno == UNTOUCHED);
        CHECK(malloc_usable_size(q) >= sizes[i] && errno == UNTOUCHED);
        free(p);
        CHECK(errno == UNTOUCHED);
        free(q);
        CHECK(errno == UNTOUCHED);
        q = aligned_alloc(4096, opaque(sizes[i]));
        CHECK(q != NULL && errno == UNTOUCHED);
        free(q);
        CHECK(errno == UNTOUCHED);
    }
}

static void zero_sizes(void)
{
    void *a = malloc(opaque(0)), *b = malloc(opaque(0)), *c = calloc(0, opaque(8)), *d = calloc(8, opaque(0));
    CHECK(a && b && c && d);
    CHECK(a != b && a != c && a != d && b != c && b != d && c != d);
    free(a), free(b), free(c), free(d);
    free(NULL);
    CHECK(malloc_usable_size(NULL) == 0);
    void *p = malloc(100);
    errno = UNTOUCHED;
    CHECK(realloc(opaque_pointer(p), opaque(0)) == NULL);
    CHECK(errno == UNTOUCHED);
    p = realloc(NULL, opaque(0));
    CHECK(p != NULL);
    free(p);
    p = aligned_alloc(64, opaque(0));
    CHECK(p != NULL && (uintptr_t)p % 64 == 0);
    free(p);
    p = valloc(opaque(0));
    CHECK(p != NULL);
    free(p);
    p = pvalloc(opaque(0));
    CHECK(p != NULL && malloc_usable_size(p) >= (size_t)getpagesize());
    free(p);
}

static void impossible_sizes(void)
{
    size_t sizes[] = {(size_t)PTRDIFF_MAX + 1, (size_t)PTRDIFF_MAX + 4096, SIZE_MAX - 4096, SIZE_MAX - 15,
                      SIZE_MAX - 1, SIZE_MAX, (size_t)PTRDIFF_MAX};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t size = opaque(sizes[i]);
        FAILS(malloc(size));
        FAILS(calloc(1, size));
        FAILS(calloc(size, 1));
        FAILS(calloc(size, 2));
        FAILS(realloc(NULL, size));
        FAILS(reallocarray(NULL, size, 3));
        FAILS(aligned_alloc(16, size));
        FAILS(aligned_alloc(4096, size));
        FAILS(aligned_alloc((size_t)1 << 30, size));
        FAILS(memalign(64, size));
        FAILS(valloc(size));
        FAILS(pvalloc(size));
        void *p = (void *)1;
        errno = UNTOUCHED;
        CHECK(posix_memalign(&p, 64, size) == ENOMEM);
        CHECK(p == (void *)1 && errno == ENOMEM);
    }
    FAILS(calloc(opaque((size_t)1 << 33), opaque((size_t)1 << 33)));
    FAILS(reallocarray(NULL, opaque((size_t)1 << 33), opaque((size_t)1 << 33)));
    FAILS(aligned_alloc((size_t)1 << 62, opaque(1)));
    FAILS(aligned_alloc((size_t)1 << 63, opaque(1)));
}

static void failing_realloc_keeps_the_object(void)
{
    static const size_t sizes[] = {10, 500, 5000, 200000, 3 << 20};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        unsigned char *p = malloc(opaque(sizes[i]));
        memset(p, 0x5a, sizes[i]);
        FAILS(realloc(p, opaque(PTRDIFF_MAX)));
        FAILS(realloc(p, opaque(SIZE_MAX)));
        FAILS(reallocarray(p, opaque(SIZE_MAX / 2), 3));
        for (size_t at = 0; at < sizes[i]; at++) {
            CHECK(p[at] == 0x5a);
        }
        free(p);
    }
}

static void realloc_keeps_contents(void)
{
    unsigned char *p = NULL;
    size_t size = 0;
    for (size_t next = 1; next < (9u << 20); next = next * 3 / 2 + 7) {
        p = realloc(p, opaque(next));
        CHECK(p != NULL && (uintptr_t)p % alignof(max_align_t) == 0);
        for (size_t at = 0; at < size; at++) {
            CHECK(p[at] == (unsigned char)(at * 7));
        }
        for (size_t at = 0; at < next; at++) {
            p[at] = (unsigned char)(at * 7);
        }
        size = next;
    }
    while (size > 1) {
        size = size * 2 / 3;
        p = realloc(p, opaque(size));
        CHECK(p != NULL);
        for (size_t at = 0; at < size; at++) {
            CHECK(p[at] == (unsigned char)(at * 7));
        }
    }
    free(p);
}

static void bad_alignments(void)
{
    static const size_t bad[] = {0, 3, 24, 100, SIZE_MAX, ((size_t)1 << 63) + 1};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        errno = 0;
        CHECK(aligned_alloc(opaque(bad[i]), opaque(64)) == NULL);
        CHECK(errno == EINVAL);
        void *p = (void *)1;
        errno = UNTOUCHED;
        CHECK(posix_memalign(&p, opaque(bad[i]), 64) == EINVAL);
        CHECK(p == (void *)1 && errno == UNTOUCHED);
    }
    void *p = NULL;
    CHECK(posix_memalign(&p, opaque(4), 64) == EINVAL); /* a power of two that holds no pointer */
    CHECK(posix_memalign(&p, opaque(2), 64) == EINVAL);
    CHECK(posix_memalign(&p, opaque(1), 64) == EINVAL);
    p = memalign(opaque(100), 64); /* older than the rule: rounded up */
    CHECK(p != NULL && (uintptr_t)p % 128 == 0);
    free(p);
    p = memalign(opaque(0), 64);
    CHECK(p != NULL);
    free(p);
    errno = 0;
    CHECK(memalign(opaque(SIZE_MAX), 64) == NULL && errno == EINVAL);
}

static void alignments_hold(void)
{
    for (size_t size = 0; size < 300; size++) {
        char *p = malloc(opaque(size));
        CHECK((uintptr_t)p % 16 == 0);
        CHECK(malloc_usable_size(p) >= size);
        free(p);
    }
    for (size_t alignment = 1; alignment <= (16u << 20); alignment *= 2) {
        static const size_t sizes[] = {0, 1, 15, 16, 24, 100, 1000, 1008, 1024, 5000, 70000, 1 << 20, (1 << 20) + 1, 5 << 20};
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            void *held[4];
            for (int k = 0; k < 4; k++) {
                held[k] = aligned_alloc(alignment, opaque(sizes[i]));
                CHECK(held[k] != NULL && (uintptr_t)held[k] % alignment == 0);
                CHECK(malloc_usable_size(held[k]) >= sizes[i]);
                memset(held[k], 0xa0 + k, malloc_usable_size(held[k]));
            }
            for (int k = 0; k < 4; k++) {
                unsigned char *bytes = held[k];
                for (size_t at = 0; at < sizes[i]; at += 97) {
                    CHECK(bytes[at] == 0xa0 + k);
                }
            }
            unsigned char *moved = realloc(held[0], sizes[i] * 2 + 100);
            CHECK(moved != NULL);
            for (size_t at = 0; at < sizes[i]; at += 97) {
                CHECK(moved[at] == 0xa0);
            }
            free(moved);
            free(held[1]);
            free_aligned_sized(held[2], alignment, sizes[i]);
            cfree(held[3]);
        }
    }
    void *p = valloc(100);
    CHECK((uintptr_t)p % (size_t)getpagesize() == 0);
    free(p);
    p = pvalloc((size_t)getpagesize() + 1);
    CHECK((uintptr_t)p % (size_t)getpagesize() == 0);
    CHECK(malloc_usable_size(p) >= 2 * (size_t)getpagesize());
    free(p);
}

static void calloc_is_zero(void)
{
    static const size_t sizes[] = {1, 16, 100, 1000, 1024, 4000, 9000, 70000, 500000, 1 << 20, 3 << 20, 9 << 20};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        for (int round = 0; round < 20; round++) {
            unsigned char *p = calloc(opaque(sizes[i]), 1);
            CHECK(p != NULL);
            size_t usable = malloc_usable_size(p);
            for (size_t at = 0; at < sizes[i]; at++) {
                CHECK(p[at] == 0);
            }
            memset(p, 0xff, usable);
            free(p);
        }
    }
}

static void sized_free(void)
{
    for (size_t size = 0; size < 3000; size += 13) {
        free_sized(malloc(opaque(size)), size);
        free_sized(calloc(1, opaque(size)), size);
    }
    free_sized(malloc(opaque(3 << 20)), 3 << 20);
    free_sized(NULL, 5);
    free_aligned_sized(NULL, 16, 5);
}

int main(void)
{
    success_keeps_errno();
    zero_sizes();
    impossible_sizes();
    failing_realloc_keeps_the_object();
    realloc_keeps_contents();
    bad_alignments();
    alignments_hold();
    calloc_is_zero();
    sized_free();
    return 0;
}
