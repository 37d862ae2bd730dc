/* idle_clock MOST LIVE: what a few slow calls (each fourth looks at the clock) leave resident of a burst when a second
   of the clock has passed without one: the program is the clock. At most 8 MiB, or an eighth of what is live. */
#include "check.h"
#include <sys/syscall.h>
#include <time.h>

enum { BURST = 256 << 20, CALLS = 200 };
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
static size_t fill(char **objects, size_t bytes, size_t most)
{
    size_t count = bytes / (most / 2);
    static size_t seed = 1;
    for (size_t i = 0; i < count; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        size_t size = 1 + (seed >> 33) % most;
        objects[i] = malloc(opaque(size));
        CHECK(objects[i] != NULL);
        memset(objects[i], 1, size);
    }
    return count;
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
    enum { MOST = BURST / 450 + 1 };
    static char *kept[MOST], *burst[MOST];
    CHECK(count == 3);
    size_t most = strtoul(arguments[1], NULL, 10), live = strtoul(arguments[2], NULL, 10);
    CHECK(most >= 900 && live <= BURST);
    memset(kept, 1, sizeof kept); /* the tables are resident before anything is measured */
    memset(burst, 1, sizeof burst);
    fill(kept, live, most);
    long before = status_kib("VmRSS:");
    size_t objects = fill(burst, BURST, most);
    for (size_t i = 0; i < objects; i++) {
        free(burst[i]);
    }
    long after = status_kib("VmRSS:");
    seconds += 2;
    call();
    long idle = status_kib("VmRSS:"), allowed = (long)(live / 8 / 1024);
    allowed = allowed > 8192 ? allowed : 8192;
    printf("up to %zu bytes, %zu live: resident %ld, after the burst %ld, idle %ld KiB\n", most, live, before, after,
           idle);
    CHECK(idle <= before + allowed);
    return 0;
}
