/* What is freed while zero=off is not zero, and nobody takes it for written to when zero=on is asked for later. The
 * argument: the library was started with zero=on or zero=off. */
#include "check.h"
#include <allocator.h>

enum { COUNT = 100, ROUNDS = 400 };

static void free_full(size_t size)
{
    char *objects[COUNT];
    for (int i = 0; i < COUNT; i++) {
        objects[i] = malloc(opaque(size));
        CHECK(objects[i] != NULL);
        memset(objects[i], 'x', size);
    }
    for (int i = 0; i < COUNT; i++) {
        free(objects[i]);
    }
}

int main(int count, char **arguments)
{
    static const size_t sizes[] = {40, 200, 5000};
    CHECK(count == 2);
    free(malloc(opaque(40)));
    CHECK(allocator_configure(arguments[1]) == 0); /* what holds anyhow */
    CHECK(allocator_configure("zero=off") == 0);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        free_full(sizes[i]);
    }
    errno = 0;
    int later = allocator_configure("zero=on");
    int why = errno;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        for (int round = 0; round < ROUNDS; round++) { /* with frees: larger objects leave the quarantine by those */
            char *object = malloc(opaque(sizes[i]));
            CHECK(object != NULL);
            if (round % 2) {
                free(object);
            }
        }
    }
    CHECK(later == -1 && why == EINVAL);
    return 0;
}
