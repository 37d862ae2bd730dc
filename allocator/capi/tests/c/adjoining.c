/* More free memory side by side than a block can hold goes back as any other does, and the heap is sound all the while. In
 * classic mode without mappings of their own objects of 32 MiB lie in regions of which the fifth holds sixteen of them. */
#include "check.h"
#include <allocator.h>
#include <malloc.h>

#define OBJECTS 31
#define SIZE ((size_t)32 << 20)

int main(void)
{
    static void *objects[OBJECTS];
    for (int i = 0; i < OBJECTS; i++) {
        objects[i] = malloc(opaque(SIZE)); /* untouched */
        CHECK(objects[i] != NULL);
    }
    CHECK(mallinfo2().arena >= OBJECTS * SIZE);
    for (int i = 0; i < OBJECTS; i++) {
        free(objects[i]);
        CHECK(allocator_check() == 0);
    }
    malloc_trim(0);
    CHECK(allocator_check() == 0);
    CHECK(mallinfo2().arena < (size_t)1 << 20);
    return 0;
}
