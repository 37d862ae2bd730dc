/* The first allocation of a process leaves errno as it was. Exit status 9: it does not (there may be nowhere to say so). */
#include "check.h"

int main(void)
{
    errno = 4711;
    void *p = malloc(opaque(100));
    int then = errno;
    CHECK(p != NULL && then == 4711);
    free(p);
    return 0;
}
