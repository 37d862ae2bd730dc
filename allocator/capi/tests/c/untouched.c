/* calloc hands out what is fresh from the kernel as it is: pages that nobody touched are not resident. Nothing is
 * freed before the first figures are taken: classic mode knows of a free block only whether all of it is zero. A huge
 * object's memory that was used before costs no pages either. */
#include "check.h"
#include <sys/prctl.h>

#define HUGE ((size_t)256 << 20)
#define LARGE 100000
#define COUNT 200

static void expect_zeros(const char *p, size_t size)
{
    for (size_t at = 0; at < size; at += 512) {
        CHECK(p[at] == 0);
    }
    CHECK(p[size - 1] == 0);
}

int main(void)
{
    static char *held[COUNT];
    /* One byte would make all of a huge page resident. */
    CHECK(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0);
    CHECK(calloc(opaque(LARGE), 1) != NULL);
    CHECK(status_kib("VmRSS:") > 0);

    long before = status_kib("VmRSS:");
    char *huge = calloc(opaque(HUGE), 1);
    long between = status_kib("VmRSS:");
    CHECK(huge != NULL);
    for (int i = 0; i < COUNT; i++) {
        held[i] = calloc(opaque(LARGE), 1);
        CHECK(held[i] != NULL);
    }
    long after = status_kib("VmRSS:");
    printf("256 MiB: %ld KiB, %d objects of %d bytes: %ld KiB\n", between - before, COUNT, LARGE, after - between);
    fflush(stdout);
    CHECK(between - before < 2048);
    CHECK(after - between < 2048);

    expect_zeros(huge, HUGE);
    for (int i = 0; i < COUNT; i++) {
        expect_zeros(held[i], LARGE);
    }

    memset(huge, 7, HUGE / 4);
    free(huge);
    before = status_kib("VmRSS:");
    huge = calloc(HUGE, opaque(1));
    CHECK(huge != NULL);
    CHECK(status_kib("VmRSS:") - before < 2048);
    expect_zeros(huge, HUGE);
    free(huge);
    return 0;
}
