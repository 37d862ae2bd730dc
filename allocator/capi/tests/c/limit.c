/* RLIMIT_AS of 256 MiB: at least 95 % of it is usable, whatever the size of the objects, but for what rounding up to
 * a size class takes; then NULL with ENOMEM from every function, contents intact; after free the service resumes. */
#include "check.h"
#include <sys/resource.h>
#include <sys/wait.h>

#define LIMIT ((size_t)256 << 20)

static size_t mapped_bytes(void)
{
    return (size_t)status_kib("VmSize:") << 10;
}

struct link {
    struct link *next;
    size_t size;
};

static void fill(size_t size, size_t percent)
{
    void *warm = malloc(opaque(size));
    free(warm);
    size_t before = mapped_bytes();
    /* The limit applies to what the program maps on top of itself. */
    struct rlimit limit = {before + LIMIT, before + LIMIT};
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
    struct link *all = NULL;
    size_t total = 0;
    for (;;) {
        errno = 0;
        struct link *one = malloc(opaque(size));
        if (one == NULL) {
            break;
        }
        one->next = all;
        one->size = size;
        memset(one + 1, 0x77, size - sizeof *one);
        all = one;
        total += size;
    }
    CHECK(errno == ENOMEM);
    printf("objects of %zu bytes: %zu of 256 MiB\n", size, total >> 20);
    fflush(stdout);
    CHECK(total >= LIMIT / 100 * percent);

    errno = 0;
    CHECK(calloc(opaque(LIMIT), 1) == NULL && errno == ENOMEM);
    errno = 0;
    CHECK(realloc(all, opaque(LIMIT)) == NULL && errno == ENOMEM);
    errno = 0;
    CHECK(aligned_alloc(4096, opaque(LIMIT)) == NULL && errno == ENOMEM);
    void *out = &out;
    CHECK(posix_memalign(&out, 4096, opaque(LIMIT)) == ENOMEM && out == &out);

    size_t count = 0;
    for (struct link *one = all; one != NULL; one = one->next) {
        CHECK(one->size == size);
        unsigned char *bytes = (unsigned char *)(one + 1);
        CHECK(bytes[0] == 0x77 && bytes[size - sizeof *one - 1] == 0x77);
        count++;
    }
    CHECK(count * size == total);
    for (int round = 0; round < 3; round++) { /* serve, fail, serve again */
        struct link *half = all;
        size_t freed = 0;
        while (half != NULL && freed < total / 2) {
            struct link *next = half->next;
            free(half);
            half = next;
            freed += size;
        }
        all = half;
        size_t again = 0;
        for (;;) {
            struct link *one = malloc(opaque(size));
            if (one == NULL) {
                break;
            }
            one->next = all;
            one->size = size;
            all = one;
            again += size;
        }
        CHECK(again >= freed / 100 * 95);
    }
    while (all != NULL) {
        struct link *next = all->next;
        free(all);
        all = next;
    }
}

int main(void)
{
    /* The usable part in percent. The list node costs nothing: it lies inside the object. */
    static const struct {
        size_t size, percent;
    } rows[] = {{32, 95},     {64, 95},     {96, 95},     {1008, 95},    {1024, 95},    {4096, 95},    {10240, 95},
                {65536, 95},  {114688, 95}, {131072, 95}, {200000, 90},  {212992, 95},  {1 << 20, 95}, {3 << 20, 95},
                {8 << 20, 95}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            fill(rows[i].size, rows[i].percent);
            _exit(0);
        }
        int status = 0;
        CHECK(waitpid(child, &status, 0) == child);
        if (status != 0) {
            dprintf(2, "objects of %zu bytes: status %#x\n", rows[i].size, status);
            return 1;
        }
    }
    return 0;
}
