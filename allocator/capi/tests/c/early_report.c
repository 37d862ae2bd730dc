/* Linked with the archive: a constructor that comes before the library's own allocates, as libstdc++'s does. With the
 * argument `signal`, asks for a report by SIGUSR1, which would end a process without a handler. */
#include "check.h"
#include <signal.h>

static char *early;

__attribute__((constructor(101))) static void allocate_early(void)
{
    early = malloc(opaque(1000));
}

int main(int count, char **arguments)
{
    CHECK(early != NULL);
    early = realloc(early, opaque(3000));
    CHECK(early != NULL);
    if (count > 1 && strcmp(arguments[1], "signal") == 0) {
        CHECK(raise(SIGUSR1) == 0);
    }
    free(early);
    return 0;
}
