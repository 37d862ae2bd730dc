/* RLIMIT_DATA, which counts the break and private mappings: NULL with ENOMEM at the limit, service afterwards. */
#include "churn.h"
#include <sys/resource.h>

int main(void)
{
    churn(1, 1000);
    struct rlimit limit = {64 << 20, 64 << 20};
    CHECK(setrlimit(RLIMIT_DATA, &limit) == 0);
    for (int round = 0; round < 3; round++) {
        static void *held[100000];
        int count = 0;
        errno = 0;
        while (count < 100000 && (held[count] = malloc(opaque(1000))) != NULL) {
            memset(held[count++], 1, 1000);
        }
        CHECK(count < 100000 && errno == ENOMEM);
        CHECK(count > 40000);
        while (count > 0) {
            free(held[--count]);
        }
        churn(2, 1000);
    }
    return 0;
}
