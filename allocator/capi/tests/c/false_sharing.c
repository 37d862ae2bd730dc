/* No two threads' objects on one cache line, unless one of them gave its object away: each thread keeps what it
   allocated, while others come and go, and all lines are compared. */
#include "check.h"
#include <malloc.h>
#include <pthread.h>

enum { THREADS = 8, OBJECTS = 4000, LINE = 64 };

static void *kept[2 * THREADS][OBJECTS];
static pthread_barrier_t all;

static void *keep(void *argument)
{
    void **mine = kept[(uintptr_t)argument];
    size_t seed = (uintptr_t)argument + 1;
    pthread_barrier_wait(&all);
    for (int i = 0; i < OBJECTS; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        size_t size = 1 + (seed >> 33) % (i % 4 ? 120 : 1500);
        mine[i] = malloc(opaque(size));
        CHECK(mine[i] != NULL);
        if (i % 3 == 0) { /* a hole for the next one of this thread */
            free(mine[i]);
            mine[i] = malloc(opaque(1 + size / 2));
            CHECK(mine[i] != NULL);
        }
    }
    pthread_barrier_wait(&all); /* nobody ends while another allocates */
    return NULL;
}

struct line {
    uintptr_t address;
    int thread;
};

static int by_address(const void *a, const void *b)
{
    uintptr_t left = ((const struct line *)a)->address, right = ((const struct line *)b)->address;
    return (left > right) - (left < right);
}

int main(void)
{
    static struct line lines[THREADS * OBJECTS * 2];
    size_t count = 0;
    for (int generation = 0; generation < 2; generation++) {
        pthread_t threads[THREADS];
        CHECK(pthread_barrier_init(&all, NULL, THREADS) == 0);
        for (uintptr_t i = 0; i < THREADS; i++) {
            CHECK(pthread_create(&threads[i], NULL, keep, (void *)(i + generation * THREADS)) == 0);
        }
        for (int i = 0; i < THREADS; i++) {
            CHECK(pthread_join(threads[i], NULL) == 0);
        }
        /* The dead left their objects to their heaps' next threads: those may share lines with them. */
        count = 0;
        for (int i = 0; i < THREADS; i++) {
            for (int k = 0; k < OBJECTS; k++) {
                uintptr_t object = (uintptr_t)kept[i + generation * THREADS][k];
                size_t last = malloc_usable_size((void *)object) - 1;
                lines[count++] = (struct line){object / LINE, i};
                lines[count++] = (struct line){(object + last) / LINE, i};
            }
        }
        qsort(lines, count, sizeof *lines, by_address);
        for (size_t i = 1; i < count; i++) {
            CHECK(lines[i].address != lines[i - 1].address || lines[i].thread == lines[i - 1].thread);
        }
    }
    printf("%zu lines of %d threads, none shared\n", count, THREADS);
    return 0;
}
