/* Where memory ends, nothing waits in the thread's cache: after a request was refused the next one of its size is, too. */
#include "check.h"
#include <sys/resource.h>

int main(void)
{
    static const size_t sizes[] = {20, 100, 400, 900};
    CHECK(malloc(opaque(1)) != NULL);
    struct rlimit limit;
    CHECK(getrlimit(RLIMIT_AS, &limit) == 0);
    limit.rlim_cur = ((rlim_t)status_kib("VmSize:") << 10) + ((rlim_t)1 << 20);
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        void **all = take_all(sizes[i]);
        CHECK(all != NULL && errno == ENOMEM);
        CHECK(malloc(opaque(sizes[i])) == NULL);
        give_back(all);
    }
    return 0;
}
