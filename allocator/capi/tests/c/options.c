/* Allocates, says whether the process has more rights than its caller, and what is in force. */
#include "check.h"
#include <allocator.h>
#include <sys/auxv.h>

int main(void)
{
    char *p = malloc(opaque(100));
    CHECK(p != NULL);
    free(p);
    CHECK(dprintf(1, getauxval(AT_SECURE) ? "secure\n" : "ordinary\n") > 0);
    allocator_stats();
    return 0;
}
