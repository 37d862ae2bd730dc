/* malloc_trim says 1 when something went back to the kernel, and 0 when there is nothing more: with -DMOVED where
 * somebody else left the break within a page, too. */
#include "check.h"
#include <malloc.h>

#define SIZE 5000

static void use(int count)
{
    static void *held[10000];
    for (int i = 0; i < count; i++) {
        held[i] = malloc(opaque(SIZE));
        CHECK(held[i] != NULL);
        memset(held[i], 1, SIZE);
    }
    for (int i = count; i > 0; i--) {
        free(held[i - 1]);
    }
}

static void expect_one_answer(void)
{
    CHECK(malloc_trim(0) == 1);
    CHECK(malloc_trim(0) == 0);
}

/* Of objects of `size` bytes every second one is free, in spans that stay in use. */
static void part(size_t size, int counts)
{
    enum { COUNT = 1000 };
    static void *held[COUNT];
    for (int i = 0; i < COUNT; i++) {
        held[i] = malloc(opaque(size));
        CHECK(held[i] != NULL);
        memset(held[i], 1, size);
    }
    malloc_trim(0);
    for (int i = 0; i < COUNT; i += 2) {
        free(held[i]);
    }
    long before = status_kib("VmRSS");
    int answer = malloc_trim(0);
    long gone = before - status_kib("VmRSS");
    CHECK(!counts || answer == 1 || gone < COUNT / 4 * (long)(size >> 10));
    CHECK(malloc_trim(0) == 0);
}

int main(void)
{
#ifdef MOVED
    CHECK(sbrk(16) != (void *)-1);
#endif
    use(10000);
    expect_one_answer();
    use(20); /* few enough to wait with the thread that freed them */
    expect_one_answer();
    use(10000);
    use(20);
    expect_one_answer();
    part(64 << 10, 1);
    part(SIZE, 0); /* what went back of those is not known, and does not count */
    return 0;
}
