/* relieved CASE: memory that is free somewhere is found by whoever needs it: in the heap of a thread that has ended,
 * among what a thread keeps for its next requests, in a cache, by a thread that has no heap of its own yet. */
#include "check.h"
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/resource.h>

#define MIB ((size_t)1 << 20)

/* Leaves `more` bytes of address space beyond what is mapped. */
static void limit_address_space(size_t more)
{
    size_t limit = ((size_t)status_kib("VmSize:") << 10) + more;
    struct rlimit limits = {limit, limit};
    CHECK(setrlimit(RLIMIT_AS, &limits) == 0);
}

/* The stacks are the program's own, so that no limit refuses them. */
static pthread_t start(void *(*act)(void *), void *argument, int number)
{
    static char stacks[64][1 << 15] __attribute__((aligned(4096)));
    pthread_attr_t attributes;
    pthread_t thread;
    CHECK(pthread_attr_init(&attributes) == 0);
    CHECK(pthread_attr_setstack(&attributes, stacks[number], sizeof stacks[number]) == 0);
    CHECK(pthread_create(&thread, &attributes, act, argument) == 0);
    return thread;
}

static void in_thread(void *(*act)(void *), void *argument)
{
    CHECK(pthread_join(start(act, argument, 0), NULL) == 0);
}

/* `bytes` in objects of one size that each hold the address of the one before. */
static void **take(size_t size, size_t bytes)
{
    void **all = NULL;
    for (size_t i = 0; i < bytes / size; i++) {
        void **one = malloc(opaque(size));
        CHECK(one != NULL);
        memset(one, 1, size);
        *one = all;
        all = one;
    }
    return all;
}

/* Frees one object of `each`, or, with `others`, all but those. Returns the rest. */
static void **release(void **all, size_t each, int others)
{
    void **rest = NULL;
    for (size_t i = 0; all != NULL; i++) {
        void **next = *all;
        if ((i % each == 0) != others) {
            free(all);
        } else {
            *all = rest;
            rest = all;
        }
        all = next;
    }
    return rest;
}

static void **left;

static void *leave_most(void *unused)
{
    left = release(take(64, 200 * MIB), 8, 0);
    return unused;
}

/* What an ended thread allocated is freed by another one, which then needs room for something else. */
static void in_an_ended_heap(size_t size)
{
    limit_address_space(256 * MIB);
    in_thread(leave_most, NULL);
    CHECK(release(left, 1, 0) == NULL);
    void **all = take(size, 180 * MIB / size * size);
    CHECK(release(all, 1, 0) == NULL);
}

/* Slices that a thread keeps, one by one, become a span of several. */
static void among_what_a_thread_keeps(void)
{
    void **small = take(64, 8 * MIB);
    limit_address_space(0);
    void **medium = take_all(9000), **others = take_all(64);
    size_t count = 0;
    for (; count < MIB / 64; count++) {
        small = *small;
    }
    /* Those of twelve slices, which lie one after the other. */
    void **first = small;
    for (count = 0; count < 12 * 65536 / 64; count++) {
        void **next = *first;
        free(first);
        first = next;
    }
    CHECK(malloc(opaque(9000)) != NULL);
    CHECK(calloc(opaque(9000), 1) != NULL);
    CHECK(aligned_alloc(4096, opaque(12288)) != NULL);
    give_back(others);
    give_back(medium);
}

static atomic_int arrived, go_on;

static void wait_for(atomic_int *what, int count)
{
    while (atomic_load(what) < count) {
        usleep(100);
    }
}

static void *hold(void *unused)
{
    left = take(4096, 64 * MIB);
    atomic_fetch_add(&arrived, 1);
    wait_for(&go_on, 1);
    return unused;
}

static void *trim(void *answer)
{
    *(int *)answer = malloc_trim(0);
    return NULL;
}

/* A thread that never allocated asks for a trim: what others freed for a sleeping thread goes back. */
static void by_a_thread_without_a_heap(void)
{
    free(malloc(opaque(64)));
    long before = status_kib("VmRSS:");
    pthread_t sleeper = start(hold, NULL, 1);
    wait_for(&arrived, 1);
    CHECK(release(left, 1, 0) == NULL);
    int answer = 0;
    in_thread(trim, &answer);
    CHECK(status_kib("VmRSS:") - before < 16 << 10);
    atomic_store(&go_on, 1);
    CHECK(pthread_join(sleeper, NULL) == 0);
}

enum { ENDED = 12 };

static void *leave_half(void *unused)
{
    void **all = take(64, 8 * MIB);
    atomic_fetch_add(&arrived, 1);
    wait_for(&arrived, ENDED);
    release(all, 2, 0);
    return unused;
}

/* Half of what twelve threads had is free when they have ended. */
static void in_many_ended_heaps(void)
{
    pthread_t threads[ENDED];
    for (int i = 0; i < ENDED; i++) {
        threads[i] = start(leave_half, NULL, i);
    }
    for (int i = 0; i < ENDED; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    size_t before = mallinfo2().arena;
    take(64, 44 * MIB);
    CHECK(mallinfo2().arena - before <= 12 * MIB);
}

enum { AT_ONCE = 64 };

static void *allocate_little(void *unused)
{
    CHECK(malloc(opaque(16)) != NULL);
    atomic_fetch_add(&arrived, 1);
    wait_for(&arrived, AT_ONCE);
    return unused;
}

/* The records of heaps need memory of the kernel's, which is all in the pools. */
static void for_more_threads(void)
{
    void **all = take(64, 100 * MIB);
    pthread_t threads[AT_ONCE];
    limit_address_space(MIB);
    take_all(64);
    CHECK(release(all, 1, 0) == NULL);
    for (int i = 0; i < AT_ONCE; i++) {
        threads[i] = start(allocate_little, NULL, i);
    }
    for (int i = 0; i < AT_ONCE; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
}

/* Nothing is given back for what no address can hold. Time may take it back meanwhile, but not each time. */
static void not_for_the_impossible(void)
{
    int tries = 0;
    size_t before, after;
    do {
        CHECK(tries++ < 20);
        for (int i = 0; i < 2; i++) {
            char *large = malloc(opaque(40 * MIB));
            CHECK(large != NULL);
            large[0] = 1;
            free(large);
        }
        before = mallinfo2().keepcost;
        CHECK(aligned_alloc(opaque((size_t)1 << 62), 1) == NULL && errno == ENOMEM);
        CHECK(malloc(opaque(PTRDIFF_MAX)) == NULL);
        after = mallinfo2().keepcost;
    } while (before == 0 || before != after);
}

int main(int count, char **arguments)
{
    CHECK(count == 2);
    switch (atoi(arguments[1])) {
    case 1: in_an_ended_heap(180 * MIB); break;
    case 2: in_an_ended_heap(4096); break;
    case 3: among_what_a_thread_keeps(); break;
    case 4: by_a_thread_without_a_heap(); break;
    case 5: in_many_ended_heaps(); break;
    case 6: for_more_threads(); break;
    case 7: not_for_the_impossible(); break;
    default: CHECK(!"a case of this program");
    }
    return 0;
}
