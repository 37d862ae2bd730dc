/* malloc_info on standard output, with some objects live, some freed between others, and one with a mapping of its own. */
#include "check.h"
#include <malloc.h>

enum { COUNT = 100 };

int main(void)
{
    static void *held[2][COUNT];
    static const size_t sizes[] = {40, 5000};
    for (int kind = 0; kind < 2; kind++) {
        for (int i = 0; i < COUNT; i++) {
            held[kind][i] = malloc(opaque(sizes[kind]));
            CHECK(held[kind][i] != NULL);
        }
    }
    for (int kind = 0; kind < 2; kind++) {
        for (int i = 0; i < COUNT; i += 2) {
            free(held[kind][i]);
        }
    }
    /* glibc sorts what is free by size when a request does not fit. */
    void *between = malloc(opaque(60000));
    void *mapped = malloc(opaque(5 << 20));
    CHECK(between != NULL && mapped != NULL);
    CHECK(malloc_info(0, stdout) == 0);
    free(mapped);
    free(between);
    return 0;
}
