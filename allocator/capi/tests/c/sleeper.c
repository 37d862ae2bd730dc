/* A thread that sleeps has no slow path on which it could take back what others free for it. Another one that needs
 * memory takes it back. Then the sleeper wakes and goes on: both ways, again and again, every byte checked. */
#include "churn.h"
#include "allocator.h"
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

enum { OBJECTS = 20000, ROUNDS = 2000 };
static unsigned char *objects[OBJECTS];
static size_t smallest, spread;

static size_t size_of(int i)
{
    return smallest + (size_t)i * 7919 % spread;
}

static void allocate(int i)
{
    objects[i] = malloc(size_of(i));
    CHECK(objects[i] != NULL);
    objects[i][0] = objects[i][size_of(i) - 1] = (unsigned char)i;
}

static void release(int i)
{
    CHECK(objects[i][0] == (unsigned char)i && objects[i][size_of(i) - 1] == (unsigned char)i);
    free(objects[i]);
}

static uint64_t committed(void)
{
    struct allocator_statistics now;
    CHECK(allocator_get_stats(&now, sizeof now) == 0);
    return now.committed_bytes;
}

/* Takes new spans until a good part of what the sleeper held is nobody's any more. It takes a while until the sleeper is
 * taken for one. What is taken meanwhile stays below a quarter: without a visit the sum never falls. */
static void *need_memory(void *unused)
{
    for (int i = 0; i < OBJECTS; i++) release(i);
    uint64_t before = committed(), own = 0;
    static void *held[ROUNDS];
    int rounds = 0;
    do {
        CHECK(rounds < ROUNDS && own < before / 4);
        size_t size = 20000 + (size_t)rounds * 977 % 20000;
        own += size;
        held[rounds++] = malloc(size);
        usleep(20000);
    } while (committed() > before * 3 / 4);
    while (rounds > 0) free(held[--rounds]);
    return unused;
}

static void in_thread(void *(*act)(void *), void *argument)
{
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, act, argument) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
}

/* Small objects, then ones with a bit each. The order of frees leaves every span partly free before the thread sleeps,
 * so that none is in limbo, where anybody could take it. */
static void sleep_and_wake(void)
{
    static const size_t sizes[][2] = {{16, 900}, {1100, 9000}};
    for (int kind = 0; kind < 2; kind++) {
        smallest = sizes[kind][0];
        spread = sizes[kind][1] - smallest;
        for (int i = 0; i < OBJECTS; i++) allocate(i);
        for (int i = 0; i < OBJECTS; i += 5) release(i);
        for (int i = 0; i < OBJECTS; i += 5) allocate(i);
        in_thread(need_memory, NULL);
        CHECK(allocator_check() == 0);
    }
}

/* Threads that sleep and wake at random, and free each other's objects meanwhile. */
static _Atomic(struct churn *) passed[4];
static atomic_int over;

static void *come_and_go(void *argument)
{
    uintptr_t number = (uintptr_t)argument;
    struct churn *mine = calloc(1, sizeof *mine);
    CHECK(mine != NULL);
    mine->state = 88172645463325252u + number;
    while (!atomic_load(&over)) {
        churn_steps(mine, 3000);
        mine = atomic_exchange(&passed[churn_random(mine) % 4], mine);
        if (mine == NULL) {
            mine = calloc(1, sizeof *mine);
            CHECK(mine != NULL);
            mine->state = 1 + number;
        }
        if (churn_random(mine) % 4 == 0) usleep(30000);
    }
    churn_end(mine);
    free(mine);
    return NULL;
}

int main(int count, char **arguments)
{
    sleep_and_wake();
    pthread_t threads[6];
    for (uintptr_t i = 0; i < 6; i++) CHECK(pthread_create(&threads[i], NULL, come_and_go, (void *)i) == 0);
    usleep(count > 1 ? (unsigned)atoi(arguments[1]) * 1000u : 1500000u);
    atomic_store(&over, 1);
    for (int i = 0; i < 6; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    for (int i = 0; i < 4; i++) {
        struct churn *left = atomic_load(&passed[i]);
        if (left != NULL) churn_end(left), free(left);
    }
    CHECK(allocator_check() == 0);
    return 0;
}
