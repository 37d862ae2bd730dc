/* idle SIZE [malloc|calloc|huge|sparse]: what stays resident after a burst of objects up to SIZE: with a purging thread without any
   further call, else from the first calls after a second on. A limit is waited for, not timed: a machine that is busy only makes
   this slower. `sparse`: every 15th object stays, all of one size, and the process is never idle. */
#include "check.h"

enum { BURST = 256 << 20 };

static void burst(size_t most, int sparse)
{
    size_t count = sparse ? BURST / most : BURST / (most / 2), seed = 1;
    char **objects = malloc(count * sizeof *objects);
    CHECK(objects != NULL);
    for (size_t i = 0; i < count; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        size_t size = sparse ? most : 1 + (seed >> 33) % most;
        objects[i] = malloc(size);
        CHECK(objects[i] != NULL);
        memset(objects[i], 1, size);
    }
    for (size_t i = 0; i < count; i++) {
        if (!sparse || i % 15 != 0) {
            free(objects[i]);
        }
    }
    free(objects);
}

int main(int count, char **arguments)
{
    CHECK(count >= 2);
    size_t largest = strtoul(arguments[1], NULL, 10);
    int zeroed = count > 2 && strcmp(arguments[2], "calloc") == 0;
    int sparse = count > 2 && strcmp(arguments[2], "sparse") == 0;
    long kept = 8192 + (sparse ? BURST / 15 / 1024 : 0);
    int huge = count > 2 && strcmp(arguments[2], "huge") == 0;
    int calls = count < 3 ? 0 : zeroed ? 100 : 200; /* more than lies ready */
    static void *some[200];
    long before = status_kib("VmRSS:");
    burst(largest, sparse);
    long held = status_kib("VmRSS:"), now = held;
    for (int tries = 0; tries < 600 && now > before + kept; tries++) {
        usleep(100000);
        for (int call = 0; call < calls; call++) {
            if (huge) {
                free(malloc(opaque(2 << 20)));
            }
            some[call] = huge ? NULL : zeroed ? calloc(1, opaque(40000)) : malloc(opaque(700));
        }
        for (int call = 0; call < calls; call++) {
            free(some[call]);
        }
        now = status_kib("VmRSS:");
    }
    printf("up to %zu bytes: resident %ld, after the burst %ld, idle %ld KiB\n", largest, before, held, now);
    CHECK(now <= before + kept);
    return 0;
}
