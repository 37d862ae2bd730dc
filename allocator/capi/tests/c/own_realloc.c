/* A program with a realloc of its own: reallocarray goes through it, as glibc's does, and the name by which it reaches
 * the real one does not come back to it. */
#include "check.h"

extern void *__libc_realloc(void *p, size_t size);

static volatile int calls; /* the header says that no function calls back */
void *realloc(void *p, size_t size)
{
    calls++;
    CHECK(calls < 100);
    return __libc_realloc(p, size);
}

int main(void)
{
    char *p = reallocarray(NULL, opaque(3), opaque(50));
    CHECK(p != NULL && calls == 1);
    memset(p, 5, 150);
    p = reallocarray(p, opaque(3), opaque(5000));
    CHECK(p != NULL && p[149] == 5 && calls == 2);
    errno = 0;
    CHECK(reallocarray(p, opaque(SIZE_MAX / 2), opaque(3)) == NULL && errno == ENOMEM && calls == 2);
    free(p);
    return 0;
}
