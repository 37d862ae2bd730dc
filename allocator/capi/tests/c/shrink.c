/* An object that shrinks where there is no memory to move it to stays where it is, and is as small as was asked for. With
 * an argument nothing of what it held beyond is left there. -DSIZES=... gives other sizes than these. */
#include "check.h"
#include <allocator.h>
#include <sys/resource.h>

#ifndef SIZES
#define SIZES 900, 5000, 300000
#endif

int main(int count, char **arguments)
{
    (void)arguments;
    static const size_t sizes[] = {SIZES};
    enum { COUNT = sizeof sizes / sizeof *sizes };
    char *objects[COUNT];
    for (int i = 0; i < COUNT; i++) {
        objects[i] = malloc(opaque(sizes[i]));
        CHECK(objects[i] != NULL);
        memset(objects[i], i, sizes[i]);
    }
    struct rlimit limit;
    CHECK(getrlimit(RLIMIT_AS, &limit) == 0);
    rlim_t before = limit.rlim_cur;
    limit.rlim_cur = (rlim_t)status_kib("VmSize:") << 10;
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
    void **all = take_all(100);
    int stayed = 0;
    for (int i = 0; i < COUNT; i++) {
        char *place = objects[i];
        objects[i] = realloc(objects[i], opaque(100));
        CHECK(objects[i] != NULL && objects[i][99] == (char)i);
        volatile char *beyond = objects[i] + sizes[i] / 2;
        stayed += objects[i] == place;
        CHECK(count == 1 || objects[i] != place || *beyond == 0);
        free_sized(objects[i], opaque(100));
    }
    CHECK(stayed > 0);
    limit.rlim_cur = before;
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
    give_back(all);
    CHECK(allocator_check() == 0);
    return 0;
}
