/* idle_clock MOST LIVE BY: what a few slow calls leave resident of a burst when a second of the clock has passed without
   one: the program is the clock. At most 8 MiB, or an eighth of what is live. BY `main` the thread that frees the
   burst allocated it, by `asleep` and `ended` seven others did, by `own` each of them frees what it allocated and
   sleeps. */
#include "check.h"
#include <pthread.h>
#include <sys/syscall.h>
#include <time.h>

enum { BURST = 252 << 20, CALLS = 200, OTHERS = 7, MOST = BURST / 450 + OTHERS };
static char *kept[MOST], *burst[MOST];
static size_t most, filled[OTHERS];
static pthread_barrier_t all_is_there;
static int ends, own;
static long seconds = 1000;

/* The library's clock stands still but for what the test adds; everybody else's is as it was. */
int clock_gettime(clockid_t clock, struct timespec *time)
{
    if (clock == CLOCK_MONOTONIC_COARSE) {
        *time = (struct timespec){.tv_sec = seconds};
        return 0;
    }
    return (int)syscall(SYS_clock_gettime, clock, time);
}

/* Allocates and writes objects of up to `most` bytes, `bytes` in all; their number. */
static size_t fill(char **objects, size_t bytes)
{
    size_t count = bytes / (most / 2);
    size_t seed = 1;
    for (size_t i = 0; i < count; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        size_t size = 1 + (seed >> 33) % most;
        objects[i] = malloc(opaque(size));
        CHECK(objects[i] != NULL);
        memset(objects[i], 1, size);
    }
    return count;
}

static void empty(size_t number)
{
    for (size_t k = 0; k < filled[number]; k++) free(burst[number * (MOST / OTHERS) + k]);
}

/* Another thread's share of the burst. */
static void *share(void *place)
{
    size_t number = (size_t)((size_t *)place - filled);
    filled[number] = fill(burst + number * (MOST / OTHERS), BURST / OTHERS);
    if (own) empty(number);
    pthread_barrier_wait(&all_is_there);
    while (!ends) pause();
    return NULL;
}

/* Their threads live on or have ended when this returns. */
static void share_out(void)
{
    pthread_t threads[OTHERS];
    pthread_barrier_init(&all_is_there, NULL, OTHERS + 1);
    for (int i = 0; i < OTHERS; i++) CHECK(pthread_create(&threads[i], NULL, share, &filled[i]) == 0);
    pthread_barrier_wait(&all_is_there);
    for (int i = 0; ends && i < OTHERS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
}

/* More objects than lie ready, so that a few of the calls are slow. */
static void call(void)
{
    static void *some[CALLS];
    for (int i = 0; i < CALLS; i++) {
        some[i] = malloc(opaque(960));
    }
    for (int i = 0; i < CALLS; i++) {
        free(some[i]);
    }
}

int main(int count, char **arguments)
{
    CHECK(count == 4);
    size_t live = strtoul(arguments[2], NULL, 10);
    most = strtoul(arguments[1], NULL, 10);
    CHECK(most >= 900 && live <= BURST);
    ends = strcmp(arguments[3], "ended") == 0;
    own = strcmp(arguments[3], "own") == 0;
    memset(kept, 1, sizeof kept); /* the tables are resident before anything is measured */
    memset(burst, 1, sizeof burst);
    fill(kept, live);
    long before = status_kib("VmRSS:");
    if (strcmp(arguments[3], "main") == 0) {
        filled[0] = fill(burst, BURST);
    } else {
        share_out();
    }
    for (size_t i = 0; !own && i < OTHERS; i++) empty(i);
    long after = status_kib("VmRSS:");
    seconds += 2;
    call();
    long idle = status_kib("VmRSS:"), allowed = (long)(live / 8 / 1024);
    allowed = allowed > 8192 ? allowed : 8192;
    printf("up to %zu bytes, %zu live, by %s: resident %ld, after the burst %ld, idle %ld KiB\n", most, live, arguments[3],
           before, after, idle);
    CHECK(idle <= before + allowed);
    return 0;
}
