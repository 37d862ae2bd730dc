/* allocator_init says that there is no memory where there is none, before the first allocation too, and works later. */
#include "check.h"
#include <allocator.h>
#include <sys/resource.h>

int main(void)
{
    size_t mapped = (size_t)status_kib("VmSize:") << 10;
    struct rlimit limit;
    CHECK(getrlimit(RLIMIT_AS, &limit) == 0);
    rlim_t before = limit.rlim_cur;
    limit.rlim_cur = mapped;
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
    /* Whatever was taken before main. */
    void **all = take_all(sizeof(void *));
    errno = 0;
    CHECK(allocator_init() == -1 && errno == ENOMEM);
    limit.rlim_cur = before;
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
    errno = 4711;
    CHECK(allocator_init() == 0 && errno == 4711);
    give_back(all);
    CHECK(allocator_check() == 0);
    return 0;
}
