/* Which objects lie below the program break. Argument: the largest size that does, or 0 if none does. */
#include "check.h"

static uintptr_t start;

static void expect(int count, size_t size, int inside)
{
    for (int i = 0; i < count; i++) {
        char *p = malloc(opaque(size));
        CHECK(p != NULL);
        memset(p, 1, size);
        if (is_in_break(p, start) != inside || is_in_break(p + size - 1, start) != inside) {
            dprintf(2, "object %d of %zu bytes lies %s the break, at %p; the break: %#lx to %p\n", i, size,
                    inside ? "outside" : "in", (void *)p, (unsigned long)start, sbrk(0));
            _exit(9);
        }
    }
}

int main(int count, char **arguments)
{
    CHECK(count == 2);
    size_t largest = strtoul(arguments[1], NULL, 10);
    start = start_of_break();
    expect(1000, 100, largest != 0);
    expect(60, 100000, largest != 0);
    expect(60, largest != 0 ? largest : 131071, largest != 0);
    expect(20, 131072, 0);
    expect(8, 1 << 20, 0);
    expect(4, 5 << 20, 0);
    expect(1000, 100, largest != 0); /* the others change nothing */
    return 0;
}
