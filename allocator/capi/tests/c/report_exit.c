/* report_exit FILE: closes every descriptor above standard error, as daemons do, and opens the file in their place.
   report_exit FILE signal: opens it in the place of standard error, and asks for a report. */
#include "check.h"
#include <signal.h>

static int opened(const char *file)
{
    int descriptor = open(file, O_CREAT | O_WRONLY | O_TRUNC, 0600);
    CHECK(descriptor >= 0);
    CHECK(write(descriptor, "mine\n", 5) == 5);
    return descriptor;
}

int main(int count, char **arguments)
{
    CHECK(count == 2 || count == 3);
    free(malloc(opaque(10)));
    if (count == 3) {
        CHECK(dup2(opened(arguments[1]), 2) == 2);
        CHECK(raise(SIGUSR1) == 0);
        return 0;
    }
    for (int descriptor = 3; descriptor < 1024; descriptor++) {
        close(descriptor);
    }
    while (opened(arguments[1]) < 200) {
    }
    return 0;
}
