/* Somebody else moves the break each time that the heap has grown, until the heap leaves it alone. Then it stays where
 * it is, however often what the heap gave back is asked for again. */
#include "check.h"

#define MOVES 20
#define OBJECTS 40
#define SIZE 100000

static void grow(void)
{
    static char *objects[OBJECTS];
    for (int i = 0; i < OBJECTS; i++) {
        objects[i] = malloc(opaque(SIZE));
        CHECK(objects[i] != NULL);
        memset(objects[i], i, SIZE);
    }
    for (int i = 0; i < OBJECTS; i++) {
        CHECK(objects[i][SIZE - 1] == (char)i);
        free(objects[i]);
    }
}

int main(void)
{
    for (int move = 0; move < MOVES; move++) {
        const char *end = sbrk(0);
        for (int i = 0; i < 2000 && sbrk(0) == end; i++) {
            CHECK(malloc(opaque(1000)) != NULL);
        }
        CHECK(sbrk(4096) != (void *)-1);
    }
    grow();
    const char *end = sbrk(0);
    for (int round = 0; round < 20; round++) {
        grow();
    }
    CHECK(sbrk(0) == end);
    return 0;
}
