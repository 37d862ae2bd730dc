/* A report on standard output, after a line with the number of a thread that holds 1,000 objects of 5,000 bytes; then
 * what the counters say once it has freed them and many more; and what was cached before there was a thread. */
#include "check.h"
#include <allocator.h>
#include <pthread.h>
#include <sys/syscall.h>

#define HELD 1000
#define BURST 10000
#define SIZE 5000
#define HUGE ((size_t)30 << 20)
#define MEBIBYTES 400

static pthread_barrier_t turn;

static void *work(void *unused)
{
    static void *held[BURST];
    (void)unused;
    for (int i = 0; i < BURST; i++) {
        if (i == HELD) {
            dprintf(1, "held by %ld\n", (long)syscall(SYS_gettid));
            pthread_barrier_wait(&turn);
            pthread_barrier_wait(&turn); /* the report is written */
        }
        held[i] = malloc(opaque(SIZE));
        CHECK(held[i] != NULL);
        memset(held[i], 1, SIZE);
    }
    for (int i = 0; i < BURST; i++) {
        free(held[i]);
    }
    pthread_barrier_wait(&turn);
    pthread_barrier_wait(&turn); /* others looked at what is left, while this thread is there */
    return NULL;
}

static struct allocator_statistics now(void)
{
    struct allocator_statistics now;
    CHECK(allocator_get_stats(&now, sizeof now) == 0);
    return now;
}

/* While there is one thread: then heaps keep empty spans for their next requests. */
static void what_a_heap_keeps_is_cached(void)
{
    static char *mebibytes[MEBIBYTES];
    for (int i = 0; i < MEBIBYTES; i++) {
        mebibytes[i] = malloc(opaque(1 << 20));
        CHECK(mebibytes[i] != NULL);
        memset(mebibytes[i], 1, 1 << 20);
    }
    for (int i = 0; i < MEBIBYTES; i++) {
        free(mebibytes[i]);
    }
    long resident = status_kib("VmRSS:");
    long cached = (long)(now().cached_bytes >> 10);
    allocator_cleanup();
    CHECK(resident - status_kib("VmRSS:") <= cached + 8192);
}

int main(void)
{
    pthread_t thread;
    what_a_heap_keeps_is_cached();
    CHECK(pthread_barrier_init(&turn, NULL, 2) == 0);
    CHECK(pthread_create(&thread, NULL, work, NULL) == 0);
    pthread_barrier_wait(&turn);
    CHECK(allocator_report(1) == 0);
    struct allocator_statistics held = now();
    CHECK(held.live_bytes >= HELD * 5120);
    pthread_barrier_wait(&turn);

    pthread_barrier_wait(&turn);
    struct allocator_statistics freed = now();
    CHECK(freed.live_bytes <= held.live_bytes - HELD * 5120 + (1 << 20));
    CHECK(freed.cached_bytes > 0);
    allocator_cleanup();
    struct allocator_statistics clean = now();
    CHECK(clean.cached_bytes < freed.cached_bytes);
    CHECK(clean.purged_bytes > freed.purged_bytes);
    pthread_barrier_wait(&turn);
    CHECK(pthread_join(thread, NULL) == 0);

    /* An object with a mapping of its own, kept for the next one or not. */
    char *huge = malloc(opaque(HUGE));
    CHECK(huge != NULL);
    memset(huge, 1, HUGE);
    clean = now();
    huge = realloc(huge, opaque(HUGE / 3));
    CHECK(huge != NULL && now().purged_bytes >= clean.purged_bytes + HUGE / 2);
    free(huge);
    allocator_cleanup();
    CHECK(now().purged_bytes >= clean.purged_bytes + HUGE);
    CHECK(now().mapped_bytes <= clean.mapped_bytes - HUGE);
    return 0;
}
