/* Samples of three sites whose shares are known. One argument: what is done. Prints what it allocated, for the test to
 * compare with the profile that it writes. */
#include "check.h"
#include <allocator.h>
#include <malloc.h>
#include <pthread.h>
#include <sys/wait.h>

/* Not static: the test finds them by their addresses, which the program prints. */
#define SITE __attribute__((noinline, noclone))
SITE void *small_site(size_t size) { return opaque_pointer(malloc(opaque(size))); }
SITE void *medium_site(size_t size) { return opaque_pointer(malloc(opaque(size))); }
SITE void *zeroed_site(size_t size) { return opaque_pointer(calloc(1, opaque(size))); }
SITE void *aligned_site(size_t size) { return opaque_pointer(aligned_alloc(256, opaque(size))); }
SITE void *resizing_site(void *old, size_t size) { return opaque_pointer(realloc(old, opaque(size))); }
SITE void *huge_site(size_t size) { return opaque_pointer(malloc(opaque(size))); }
SITE void end_of_sites(void) { opaque(1); }

static const char *profile;

static void dump(void)
{
    errno = 4711;
    CHECK(allocator_sample_dump(profile) == 0);
    CHECK(errno == 4711);
}

static void print_sites(void)
{
    struct { const char *name; void *address; } sites[] = {
        { "small", (void *)small_site },       { "medium", (void *)medium_site },
        { "zeroed", (void *)zeroed_site },     { "aligned", (void *)aligned_site },
        { "resizing", (void *)resizing_site }, { "huge", (void *)huge_site },
        { "end", (void *)end_of_sites },
    };
    for (unsigned i = 0; i < sizeof sites / sizeof *sites; i++) {
        printf("site %s %p\n", sites[i].name, sites[i].address);
    }
    fflush(stdout);
}

enum { MANY = 400000, FEW = 20000 };
static unsigned char *small[MANY], *medium[FEW], *zeroed[FEW];

static void fill(int from, int step)
{
    for (int i = from; i < MANY; i += step) {
        small[i] = small_site(48);
        CHECK(small[i] != NULL && (uintptr_t)small[i] % 16 == 0);
        memset(small[i], i, 48);
        size_t usable = malloc_usable_size(small[i]);
        CHECK(usable >= 48 && usable < 160);
    }
    for (int i = from; i < FEW; i += step) {
        medium[i] = medium_site(2048);
        zeroed[i] = zeroed_site(960);
        CHECK(medium[i] != NULL && zeroed[i] != NULL);
        CHECK(malloc_usable_size(medium[i]) >= 2048 && malloc_usable_size(medium[i]) <= 2600);
        for (int at = 0; at < 960; at++) CHECK(zeroed[i][at] == 0);
        memset(medium[i], i, 2048);
        memset(zeroed[i], i, 960);
    }
}

static void empty(int from, int step)
{
    for (int i = from; i < MANY; i += step) {
        CHECK(small[i][0] == (unsigned char)i && small[i][47] == (unsigned char)i);
        free(small[i]);
    }
    for (int i = from; i < FEW; i += step) {
        CHECK(medium[i][2047] == (unsigned char)i && zeroed[i][959] == (unsigned char)i);
        free(medium[i]);
        free(zeroed[i]);
    }
}

static void *filler(void *part) { fill((int)(intptr_t)part, 4); return NULL; }
static void *emptier(void *part) { empty((int)(intptr_t)part, 4); return NULL; }

/* Each object is freed by another thread than the one that allocated it, and all threads have ended at the end. */
static void in_threads(void *(*work)(void *), int turn)
{
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) CHECK(!pthread_create(&threads[i], NULL, work, (void *)(intptr_t)((i + turn) % 4)));
    for (int i = 0; i < 4; i++) CHECK(!pthread_join(threads[i], NULL));
}

/* Aligned, resized and huge objects: what they promise holds for samples too. */
static void shapes(void)
{
    static unsigned char *aligned[FEW], *resized[FEW];
    for (int i = 0; i < FEW; i++) {
        aligned[i] = aligned_site(i % 2 ? 200 : 5000);
        CHECK(aligned[i] != NULL && (uintptr_t)aligned[i] % 256 == 0);
        resized[i] = malloc(24);
        memset(resized[i], i, 24);
        for (int size = 100; size < 20000; size *= 4) {
            resized[i] = resizing_site(resized[i], size);
            CHECK(resized[i] != NULL && resized[i][23] == (unsigned char)i);
            resized[i][size - 1] = 1;
        }
        resized[i] = resizing_site(resized[i], 30);
        CHECK(resized[i] != NULL && resized[i][23] == (unsigned char)i);
    }
    unsigned char *huge = NULL;
    for (size_t size = 1 << 20; size < (64u << 20); size += size / 2) {
        huge = resizing_site(huge, size);
        CHECK(huge != NULL);
        huge[size - 1] = 1;
    }
    void *large = huge_site(100u << 20);
    CHECK(large != NULL);
    dump();
    free(large);
    free(huge);
    for (int i = 0; i < FEW; i++) {
        free_sized(aligned[i], 0 + (i % 2 ? 200 : 5000));
        free(resized[i]);
    }
}

/* The child of a thread among others goes on, and has a profile of its own. */
static volatile int stop;
static void *churn(void *unused)
{
    while (!stop) {
        void *objects[64];
        for (int i = 0; i < 64; i++) objects[i] = malloc(opaque(64 + i * 40));
        for (int i = 0; i < 64; i++) free(objects[i]);
    }
    return unused;
}

static void forking(void)
{
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) CHECK(!pthread_create(&threads[i], NULL, churn, NULL));
    for (int round = 0; round < 200; round++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            for (int i = 0; i < 3000; i++) free(small_site(500));
            CHECK(allocator_sample_dump("/dev/null") == 0);
            _exit(0);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child && status == 0);
    }
    stop = 1;
    for (int i = 0; i < 2; i++) CHECK(!pthread_join(threads[i], NULL));
    dump();
}

int main(int argc, char **argv)
{
    CHECK(argc == 3);
    profile = argv[2];
    if (!strcmp(argv[1], "off")) {
        CHECK(allocator_sample_dump(profile) == -1 && errno == ENODATA);
        CHECK(allocator_configure("sample=4K") == 0);
        fill(0, 1);
        empty(0, 1);
        CHECK(allocator_configure("sample=off") == 0);
        print_sites();
        dump();
        CHECK(allocator_configure("sample=x") == -1 && errno == EINVAL);
        return 0;
    }
    print_sites();
    CHECK(allocator_sample_dump("/nonexistent/profile") == -1 && errno == ENOENT);
    CHECK(allocator_sample_dump("/") == -1 && errno == EISDIR);
    CHECK(allocator_sample_dump("/dev/full") == -1 && errno == ENOSPC);
    CHECK(allocator_sample_dump(NULL) == -1 && errno == EINVAL);
    if (!strcmp(argv[1], "live")) fill(0, 1), dump();
    if (!strcmp(argv[1], "freed")) fill(0, 1), empty(0, 1), dump();
    if (!strcmp(argv[1], "threads")) in_threads(filler, 0), dump();
    if (!strcmp(argv[1], "threads-freed")) in_threads(filler, 0), in_threads(emptier, 1), dump();
    if (!strcmp(argv[1], "shapes")) shapes();
    if (!strcmp(argv[1], "fork")) forking();
    CHECK(allocator_check() == 0);
    return 0;
}
