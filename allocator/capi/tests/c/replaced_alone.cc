/* A program that defines operators of its own and brings its C++ runtime within: nobody is there to catch what the nothrow
 * forms' plain form throws, and they serve all the same. */
#include "check.h"
#include <new>

static int made;

void *operator new(size_t size)
{
    void *p = malloc(opaque(size));
    if (p == NULL) {
        throw std::bad_alloc();
    }
    made++;
    return p;
}

void operator delete(void *p) noexcept
{
    made -= p != NULL;
    free(p);
}

int main()
{
    int *one = new (std::nothrow) int(7);
    long *many = new (std::nothrow) long[opaque(100)];
    CHECK(one != NULL && many != NULL && made == 2);
    delete one;
    delete[] many;
    CHECK(made == 0);
    return 0;
}
