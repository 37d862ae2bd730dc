/* Writes past an object into the free block behind it, prints that block's address, and asks for a check. */
#include "check.h"
#include <allocator.h>

enum { OBJECTS = 2000, SIZE = 64 };
static char *objects[OBJECTS];

int main(void)
{
    for (int i = 0; i < OBJECTS; i++) {
        objects[i] = malloc(opaque(SIZE));
        CHECK(objects[i] != NULL);
    }
    CHECK(allocator_check() == 0);
    int i = 0;
    while (objects[i] + SIZE != objects[i + 1]) CHECK(++i < OBJECTS - 1);
    free(objects[i + 1]);
    CHECK(allocator_check() == 0);
    memset(opaque_pointer(objects[i]), 'A', opaque(SIZE + 8));
    dprintf(1, "%p\n", (void *)objects[i + 1]);
    errno = 77;
    CHECK(allocator_check() == -1);
    CHECK(errno == 77);
    _exit(0); /* nothing uses the block any more */
}
