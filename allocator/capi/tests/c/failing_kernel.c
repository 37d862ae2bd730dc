/* A fixed workload for a kernel that refuses: whoever runs it makes the N-th mmap, brk, mremap, madvise or munmap
 * fail. Every function then returns NULL with ENOMEM or does its work; bytes stay intact; what was freed serves again.
 * The call of getpriority marks where the loader's own system calls end. */
#include "check.h"
#include <pthread.h>
#include <sys/resource.h>

int allocator_check(void) __attribute__((weak));
int malloc_trim(size_t);

#define COUNT 400
static unsigned char *held[COUNT];
static size_t sizes[COUNT];
static int refused;

static void *checked(void *p)
{
    if (p == NULL) {
        CHECK(errno == ENOMEM);
        refused++;
    }
    errno = 0;
    return p;
}

static void verify(int i)
{
    if (held[i] != NULL) {
        for (size_t at = 0; at < sizes[i]; at += sizes[i] / 16 + 1) {
            CHECK(held[i][at] == (unsigned char)(i * 31));
        }
    }
}

static void fill(int i)
{
    if (held[i] != NULL) {
        memset(held[i], i * 31, sizes[i]);
    }
}

static size_t size_of(int i)
{
    static const size_t kinds[] = {8, 48, 200, 1000, 1024, 3000, 8192, 30000, 65536, 200000, 600000, 1 << 20, 3 << 20, 9 << 20};
    size_t kind = kinds[i % 14];
    return kind > 700000 && i > 100 ? kind / 64 : kind;
}

/* An object with a mapping of its own grows and shrinks: its pages move, or are copied. */
static void resize_huge(void)
{
    static const size_t steps[] = {5 << 20, 21 << 20, 3 << 20, 40 << 20, 2 << 20};
    size_t size = 2 << 20;
    unsigned char *object = checked(malloc(opaque(size)));
    if (object == NULL) {
        return;
    }
    memset(object, 0x5a, size);
    for (size_t step = 0; step < sizeof steps / sizeof *steps; step++) {
        unsigned char *resized = checked(realloc(object, opaque(steps[step])));
        if (resized != NULL) {
            object = resized;
            size = steps[step];
        }
        for (size_t at = 0; at < (2 << 20); at += 997) {
            CHECK(object[at] == 0x5a);
        }
        object[size - 1] = 0x5a;
    }
    free(object);
}

static void *in_thread(void *unused)
{
    (void)unused;
    for (int i = 0; i < COUNT; i += 3) {
        verify(i);
        free(held[i]);
        held[i] = checked(malloc(opaque(sizes[i] = size_of(i + 5))));
        fill(i);
    }
    return NULL;
}

int main(void)
{
    getpriority(PRIO_PROCESS, 0x7fff0001);
    errno = 0;
    for (int i = 0; i < COUNT; i++) {
        sizes[i] = opaque(size_of(i));
        held[i] = i % 5 == 4 ? checked(aligned_alloc(4096, sizes[i])) : checked(malloc(sizes[i]));
        fill(i);
    }
    for (int i = 0; i < COUNT; i += 2) {
        size_t size = opaque(size_of(i + 3) + 10);
        unsigned char *p = checked(realloc(held[i], size));
        if (p != NULL) {
            held[i] = p;
            sizes[i] = size;
            fill(i);
        }
        verify(i);
    }
    resize_huge();
    pthread_t thread;
    if (pthread_create(&thread, NULL, in_thread, NULL) == 0) {
        CHECK(pthread_join(thread, NULL) == 0);
    }
    static size_t served[COUNT];
    int small = 0;
    for (int i = 0; i < COUNT; i++) {
        verify(i);
        if (held[i] != NULL && sizes[i] <= 1000) {
            served[small++] = sizes[i];
        }
        free(held[i]);
        held[i] = NULL;
    }
    malloc_trim(0);
    for (int i = 0; i < COUNT; i++) {
        size_t size = opaque(size_of(i));
        held[i] = checked(calloc(1, size));
        for (size_t at = 0; held[i] != NULL && at < size; at += 61) {
            CHECK(held[i][at] == 0);
        }
        free(held[i]);
        held[i] = NULL;
    }
    for (int i = 0; i < small; i += 2) { /* what served as small objects serves again, whatever the kernel says */
        held[i] = malloc(opaque(served[i]));
        CHECK(held[i] != NULL);
    }
    for (int i = 0; i < COUNT; i++) {
        free(held[i]);
    }
    if (allocator_check != NULL) {
        CHECK(allocator_check() == 0);
    }
    dprintf(1, "%d refused\n", refused);
    return 0;
}
