/* Threads free each other's objects, now and then asleep, end and begin, while another one asks for a trim and a check
 * all the time, which visit their heaps whether they sleep or not. Every byte that was written is checked, and the heap at the end. */
#include "check.h"
#include <allocator.h>
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>

enum { SLOTS = 4096, THREADS = 4, LIVES = 10, STEPS = 30000 };

struct object {
    size_t size;
    unsigned char mark;
    unsigned char bytes[];
};
static _Atomic(struct object *) slots[SLOTS];
static atomic_int at_work = THREADS;

static size_t next(size_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

static struct object *make(size_t *state)
{
    size_t size = 1 + next(state) % ((size_t)16 << next(state) % 14);
    struct object *one = malloc(opaque(sizeof *one + size));
    CHECK(one != NULL);
    one->size = size;
    one->mark = one->bytes[0] = one->bytes[size / 2] = one->bytes[size - 1] = (unsigned char)next(state);
    return one;
}

static void drop(struct object *one)
{
    if (one == NULL) return;
    size_t size = one->size;
    CHECK(one->bytes[0] == one->mark && one->bytes[size / 2] == one->mark && one->bytes[size - 1] == one->mark);
    free(one);
}

static void *live(void *seed)
{
    size_t state = (uintptr_t)seed;
    for (int step = 0; step < STEPS; step++) {
        struct object *one = next(&state) % 3 ? make(&state) : NULL;
        drop(atomic_exchange(&slots[next(&state) % SLOTS], one));
        if (next(&state) % 4096 == 0) usleep(20000); /* others take it to sleep */
    }
    return NULL;
}

static void *work(void *seed)
{
    for (uintptr_t life = 0; life < LIVES; life++) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, live, (void *)((uintptr_t)seed + life * 31)) == 0);
        CHECK(pthread_join(thread, NULL) == 0);
    }
    at_work--;
    return NULL;
}

int main(void)
{
    pthread_t threads[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++) {
        CHECK(pthread_create(&threads[i], NULL, work, (void *)(i * 977 + 1)) == 0);
    }
    while (at_work > 0) {
        malloc_trim(0);
        CHECK(allocator_check() == 0);
        usleep(500);
    }
    for (int i = 0; i < THREADS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(allocator_check() == 0);
    for (int i = 0; i < SLOTS; i++) drop(slots[i]);
    malloc_trim(0);
    CHECK(allocator_check() == 0);
    return 0;
}
