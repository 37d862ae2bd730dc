/* malloc_trim says 1 when something went back to the kernel, and 0 when there is nothing more. */
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

int main(void)
{
    use(10000);
    expect_one_answer();
    use(20); /* few enough to wait with the thread that freed them */
    expect_one_answer();
    use(10000);
    use(20);
    expect_one_answer();
    /* Every second object is free, in spans that stay in use. */
    enum { LARGE = 64 << 10, COUNT = 1000 };
    static void *large[COUNT];
    for (int i = 0; i < COUNT; i++) {
        large[i] = malloc(opaque(LARGE));
        CHECK(large[i] != NULL);
        memset(large[i], 1, LARGE);
    }
    malloc_trim(0);
    for (int i = 0; i < COUNT; i += 2) {
        free(large[i]);
    }
    long before = status_kib("VmRSS");
    int answer = malloc_trim(0);
    CHECK(answer == (before - status_kib("VmRSS") > COUNT / 4 * (LARGE >> 10)));
    CHECK(malloc_trim(0) == 0);
    return 0;
}
