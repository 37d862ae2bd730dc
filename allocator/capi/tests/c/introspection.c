/* mallopt, malloc_trim, mallinfo, malloc_info, the __libc_ names and allocator.h answer sensibly. */
#include "check.h"
#include <allocator.h>
#include <malloc.h>

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t), *__libc_valloc(size_t), *__libc_pvalloc(size_t);
extern void *__libc_reallocarray(void *, size_t, size_t);
extern int __posix_memalign(void **, size_t, size_t);
extern void __libc_free(void *), __libc_cfree(void *);
extern struct mallinfo __libc_mallinfo(void);
extern int __libc_mallopt(int, int);

/* What must hold between the figures, whatever they are. */
static void check_figures(struct mallinfo2 now)
{
    struct allocator_statistics ours;
    CHECK(allocator_get_stats(&ours, sizeof ours) == 0);
    CHECK(now.arena <= ours.mapped_bytes);
    CHECK(now.uordblks <= now.arena && now.uordblks <= ours.live_bytes);
    CHECK(now.fordblks == now.arena - now.uordblks);
    CHECK(now.keepcost <= now.fordblks && now.keepcost == ours.cached_bytes);
    CHECK(now.ordblks == 1 && now.smblks == 0 && now.usmblks == 0 && now.fsmblks == 0);
    struct mallinfo narrow = mallinfo();
    CHECK((size_t)narrow.arena == now.arena && (size_t)narrow.uordblks == now.uordblks);
    CHECK((size_t)narrow.fordblks == now.fordblks && (size_t)narrow.keepcost == now.keepcost);
    CHECK((size_t)narrow.hblks == now.hblks && (size_t)narrow.hblkhd == now.hblkhd);
    CHECK(narrow.ordblks == 1 && narrow.smblks == 0 && narrow.usmblks == 0 && narrow.fsmblks == 0);
}

int main(void)
{
    CHECK(mallopt(M_MMAP_THRESHOLD, 1 << 20) == 1);
    CHECK(mallopt(M_ARENA_MAX, 1) == 1);
    CHECK(mallopt(4711, 1) == 0);

    struct mallinfo2 before = mallinfo2();
    char *held[100];
    for (int i = 0; i < 100; i++) {
        held[i] = malloc(opaque(100000));
        CHECK(held[i] != NULL);
        memset(held[i], 1, 100000);
    }
    struct mallinfo2 after = mallinfo2();
    CHECK(after.uordblks >= before.uordblks + 100 * 100000ul);
    CHECK(after.arena < after.uordblks + (8 << 20));
    check_figures(mallinfo2());

    struct mallinfo2 few = mallinfo2();
    void *large[3];
    for (int i = 0; i < 3; i++) {
        large[i] = malloc(opaque(9 << 20));
        CHECK(large[i] != NULL);
    }
    struct mallinfo2 more = mallinfo2();
    CHECK(more.hblks == few.hblks + 3 && more.hblkhd >= few.hblkhd + 3 * (9ul << 20));
    CHECK(more.hblkhd <= few.hblkhd + 3 * (16ul << 20));
    CHECK(more.uordblks < few.uordblks + (9 << 20) && more.arena < few.arena + (9 << 20));
    check_figures(mallinfo2());
    free(large[0]);
    free(large[1]);
    CHECK(mallinfo2().hblks == few.hblks + 1 && mallinfo2().hblkhd < more.hblkhd);
    large[2] = realloc(large[2], opaque(30 << 20));
    CHECK(mallinfo2().hblks == few.hblks + 1 && mallinfo2().hblkhd >= few.hblkhd + (30 << 20));
    free(large[2]);
    CHECK(mallinfo2().hblks == few.hblks && mallinfo2().hblkhd == few.hblkhd);
    check_figures(mallinfo2());

    /* What grows where it is counts as much as what was that large from the start. */
    struct allocator_statistics small, now;
    void *growing = malloc(opaque(1100000));
    CHECK(allocator_get_stats(&small, sizeof small) == 0);
    growing = realloc(growing, opaque(4000000));
    CHECK(growing != NULL);
    CHECK(allocator_get_stats(&now, sizeof now) == 0);
    CHECK(now.live_bytes >= small.live_bytes + (2 << 20));
    free(growing);
    CHECK(allocator_get_stats(&now, sizeof now) == 0);
    CHECK(now.live_bytes <= small.live_bytes - 1000000);

    CHECK(allocator_get_stats(&now, sizeof now) == 0);
    CHECK(now.live_bytes >= 100 * 100000ul);
    CHECK(now.committed_bytes >= now.live_bytes);
    CHECK(now.mapped_bytes >= now.committed_bytes);
    CHECK(now.lock_acquisitions > 0 && now.lock_waits <= now.lock_acquisitions);
    uint64_t old_header[1] = {0};
    CHECK(allocator_get_stats((struct allocator_statistics *)old_header, sizeof old_header) == 0);
    CHECK(old_header[0] >= 100 * 100000ul);
    errno = 0;
    CHECK(allocator_get_stats(NULL, sizeof now) == -1 && errno == EINVAL);
    errno = 0;
    CHECK(allocator_get_stats(&now, 1) == -1 && errno == EINVAL);

    long resident = status_kib("VmRSS:");
    for (int i = 0; i < 100; i++) {
        free(held[i]);
    }
    check_figures(mallinfo2());
    malloc_trim(0);
    CHECK(status_kib("VmRSS:") < resident - 5000);
    struct mallinfo2 trimmed = mallinfo2();
    check_figures(trimmed);
    CHECK(trimmed.uordblks < before.uordblks + 100000ul);
    CHECK(trimmed.keepcost == 0 && trimmed.fordblks < 1 << 20);

    CHECK(allocator_configure("memory=low") == 0 && allocator_configure("memory=balanced") == 0);
    errno = 0;
    CHECK(allocator_configure("memory=lower") == -1 && errno == EINVAL);
    errno = 0;
    CHECK(allocator_configure(NULL) == -1 && errno == EINVAL);
    CHECK(allocator_report(-1) == -1 && errno == EBADF);
    void *mapped = malloc(opaque(5 << 20));
    void *one_of_six = malloc(5000); /* its span has free blocks for malloc_info to list */

    errno = 4711;
    malloc_stats();
    allocator_stats();
    CHECK(errno == 4711);
    CHECK(malloc_info(1, stdout) == EINVAL);
    CHECK(malloc_info(0, stdout) == 0);

    free(one_of_six);
    free(mapped);

    /* the other names reach the same heap */
    void *p = __libc_malloc(10);
    CHECK(p != NULL && malloc_usable_size(p) >= 10);
    p = realloc(p, 100);
    __libc_free(p);
    p = __libc_realloc(malloc(10), 20);
    free(p);
    unsigned char *zeros = __libc_calloc(3, 3);
    CHECK(zeros != NULL);
    for (int i = 0; i < 9; i++) {
        CHECK(zeros[i] == 0);
    }
    free(zeros);
    uintptr_t page = (uintptr_t)getpagesize();
    p = __libc_memalign(64, 3);
    CHECK(p != NULL && (uintptr_t)p % 64 == 0);
    free(p);
    p = __libc_valloc(3);
    CHECK(p != NULL && (uintptr_t)p % page == 0);
    free(p);
    p = __libc_pvalloc(3);
    CHECK(p != NULL && (uintptr_t)p % page == 0 && malloc_usable_size(p) >= page);
    free(p);
    p = __libc_reallocarray(NULL, opaque(10), opaque(30));
    CHECK(p != NULL && malloc_usable_size(p) >= 300);
    errno = 0;
    CHECK(__libc_reallocarray(p, opaque(SIZE_MAX / 2), opaque(3)) == NULL && errno == ENOMEM);
    free(p);
    CHECK(__posix_memalign(&p, 256, opaque(100)) == 0 && (uintptr_t)p % 256 == 0);
    free(p);
    CHECK(__posix_memalign(&p, 24, opaque(100)) == EINVAL);
    CHECK(__posix_memalign(&p, 64, opaque(SIZE_MAX / 2)) == ENOMEM);
    p = __libc_malloc(opaque(9 << 20));
    size_t mapped_objects = mallinfo2().hblks;
    __libc_cfree(p);
    CHECK(mallinfo2().hblks == mapped_objects - 1);
    __libc_cfree(NULL);
    struct mallinfo same = mallinfo(), other = __libc_mallinfo();
    CHECK(same.arena > 0 && memcmp(&same, &other, sizeof same) == 0);
    CHECK(__libc_mallopt(M_ARENA_MAX, 1) == 1 && __libc_mallopt(4711, 1) == 0);

    CHECK(allocator_init() == 0 && allocator_init() == 0);
    CHECK(allocator_check() == 0);
    allocator_cleanup();
    CHECK(strchr(allocator_version(), '.') != NULL);
    return 0;
}
