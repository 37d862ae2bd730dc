/* The break goes down to within a page, whose bytes the kernel leaves as they are: calloc clears them all the same,
 * where the heap begins and where it grows. */
#include "check.h"

#define OBJECTS 40
/* A little less than whole pages: an object begins where the heap began or grew. */
#define SIZE ((1 << 20) - 256)

/* Writes the rest of the page that the break ends in, and moves the break back. */
static void soil(void)
{
    size_t rest = 4096 - (uintptr_t)sbrk(0) % 4096;
    char *at = sbrk((intptr_t)rest);
    CHECK(at != (void *)-1);
    memset(at, 0xAA, rest);
    CHECK(sbrk(-(intptr_t)rest) == at + rest);
}

int main(void)
{
    CHECK(sbrk(16) != (void *)-1);
    for (int i = 0; i < OBJECTS; i++) {
        soil();
        unsigned char *object = calloc(1, opaque(SIZE));
        CHECK(object != NULL);
        for (int at = 0; at < SIZE; at++) {
            CHECK(object[at] == 0);
        }
    }
    return 0;
}
