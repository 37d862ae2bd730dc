/* RLIMIT_DATA of 64 MiB above what the program has before its first allocation; it counts the break and private
 * mappings. At least 95 % of that is usable, whatever the size of the objects; then NULL with ENOMEM, and service
 * after free. */
#include "churn.h"
#include <malloc.h>
#include <sys/resource.h>
#include <sys/wait.h>

#define LIMIT ((size_t)64 << 20)
#define USABLE 95

static void hold(size_t size)
{
    static void *held[LIMIT / 64];
    /* What was mapped before this line is not within the limit; the heap had no reason to map anything. */
    CHECK(mallinfo2().arena == 0 && mallinfo2().hblkhd == 0);
    size_t before = (size_t)status_kib("VmData:") << 10;
    struct rlimit limit = {before + LIMIT, before + LIMIT};
    CHECK(setrlimit(RLIMIT_DATA, &limit) == 0);
    for (int round = 0; round < 3; round++) {
        size_t count = 0, usable = 0;
        errno = 0;
        while ((held[count] = malloc(opaque(size))) != NULL) {
            size_t bytes = malloc_usable_size(held[count]);
            memset(held[count], 1, bytes);
            usable += bytes;
            count++;
        }
        CHECK(errno == ENOMEM);
        dprintf(1, "objects of %zu bytes: %.1f of 64 MiB usable\n", size, (double)usable / (1 << 20));
        CHECK(usable >= LIMIT / 100 * USABLE);
        while (count > 0) {
            free(held[--count]);
        }
        churn(2, 1000);
    }
}

int main(void)
{
    static const size_t sizes[] = {64, 1 << 10, 100 << 10, 3 << 20};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            hold(sizes[i]);
            _exit(0);
        }
        int status = 0;
        CHECK(waitpid(child, &status, 0) == child);
        if (status != 0) {
            dprintf(2, "objects of %zu bytes: status %#x\n", sizes[i], status);
            return 1;
        }
    }
    return 0;
}
