/* The heap's map on standard output, and a report on standard error when a signal asks for it (report=usr2). */
#include "check.h"
#include <allocator.h>
#include <signal.h>

int main(void)
{
    void *held[3];
    for (int i = 0; i < 3; i++) {
        held[i] = malloc(opaque(5000));
        CHECK(held[i] != NULL);
    }
    CHECK(allocator_heap_map(1) == 0);
    errno = 0;
    CHECK(allocator_heap_map(-1) == -1 && errno == EBADF);
    errno = 4711;
    CHECK(raise(SIGUSR2) == 0);
    CHECK(errno == 4711);
    for (int i = 0; i < 3; i++) {
        free(held[i]);
    }
    return 0;
}
