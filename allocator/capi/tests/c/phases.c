/* Never more than 80 MiB live, but in phases of other sizes: what one phase freed must not lie beside what the
 * next ones need. Argument: the most that may be resident at any time, in MiB. */
#include "check.h"

#define LIVE ((size_t)80 << 20)

static void phase(size_t size)
{
    /* The pages of this list do not pass through malloc. */
    static void *objects[LIVE / 64];
    size_t count = LIVE / size;
    for (size_t i = 0; i < count; i++) {
        objects[i] = malloc(opaque(size));
        CHECK(objects[i] != NULL);
        memset(objects[i], 1, size);
    }
    for (size_t i = 0; i < count; i++) {
        free(objects[i]);
    }
}

int main(int count, char **arguments)
{
    static const size_t sizes[] = {64, 1000, 4000, 20000, 100000, 300000, 1000000, 3000000, 40000000};
    CHECK(count == 2);
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            phase(sizes[i]);
            long peak = status_kib("VmHWM") >> 10;
            if (peak > atol(arguments[1])) {
                dprintf(2, "after the phase of %zu bytes %ld MiB were resident\n", sizes[i], peak);
                return 1;
            }
        }
    }
    return 0;
}
