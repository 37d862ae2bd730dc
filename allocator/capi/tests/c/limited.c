/* limited SIZE: frees 450 MiB of objects of SIZE bytes, and touches 100 MiB that it maps itself: in a control group of
 * 512 MiB that is too much where most of what was freed is kept. */
#include "check.h"
#include <sys/mman.h>

#define BURST ((size_t)450 << 20)
#define OWN ((size_t)100 << 20)

int main(int count, char **arguments)
{
    CHECK(count == 2);
    size_t size = strtoul(arguments[1], NULL, 10);
    void **all = NULL;
    for (size_t i = 0; i < BURST / size; i++) {
        void **one = malloc(opaque(size));
        CHECK(one != NULL);
        memset(one, 1, size);
        *one = all;
        all = one;
    }
    give_back(all);
    char *own = mmap(NULL, OWN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(own != MAP_FAILED);
    memset(own, 1, OWN);
    return 0;
}
