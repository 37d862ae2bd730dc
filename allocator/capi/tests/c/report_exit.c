/* report_exit FILE: closes every descriptor above standard error, as daemons do, and opens the file in their place. */
#include "check.h"

int main(int count, char **arguments)
{
    CHECK(count == 2);
    free(malloc(opaque(10)));
    for (int descriptor = 3; descriptor < 1024; descriptor++) {
        close(descriptor);
    }
    int descriptor;
    do {
        descriptor = open(arguments[1], O_CREAT | O_WRONLY | O_TRUNC, 0600);
        CHECK(descriptor >= 0);
        CHECK(write(descriptor, "mine\n", 5) == 5);
    } while (descriptor < 200);
    return 0;
}
