/* Classic mode: requests that there is no memory for do not end the region on the break. */
#include "check.h"
#include <sys/resource.h>

enum { TRIES = 100, SMALL = 100000, EACH = 4 };

int main(void)
{
    CHECK(malloc(opaque(SMALL)) != NULL);
    struct rlimit limit;
    CHECK(getrlimit(RLIMIT_AS, &limit) == 0);
    limit.rlim_cur = ((rlim_t)status_kib("VmSize:") << 10) + ((rlim_t)100 << 20);
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
    char *start = sbrk(0);
    for (int i = 0; i < TRIES; i++) {
        CHECK(malloc(opaque(400 << 20)) == NULL);
        for (int j = 0; j < EACH; j++) {
            CHECK(malloc(opaque(SMALL)) != NULL);
        }
    }
    CHECK((char *)sbrk(0) - start >= TRIES * EACH * SMALL / 4 * 3);
    return 0;
}
