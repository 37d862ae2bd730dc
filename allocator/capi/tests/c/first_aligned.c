/* An aligned request that is the first of its process: every alignment of small objects, each in a process of its own. */
#include "check.h"
#include <sys/wait.h>

int main(void)
{
    for (size_t alignment = 32; alignment <= 1024; alignment *= 2) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            void *first = NULL;
            CHECK(posix_memalign(&first, opaque(alignment), opaque(100)) == 0);
            CHECK((uintptr_t)first % alignment == 0);
            memset(first, 1, 100);
            free(first);
            _exit(0);
        }
        int status = 0;
        CHECK(waitpid(child, &status, 0) == child);
        CHECK(status == 0);
    }
    return 0;
}
