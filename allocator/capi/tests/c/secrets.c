/* What the hardened library keeps in and behind objects that are free, or that grow, is in no object that the program
 * gets: from a link or a trailer and its address one could tell the secret. */
#include "check.h"
#include <sys/resource.h>

enum { MANY = 4000 };

static void expect_zeros(const unsigned char *p, size_t from, size_t end)
{
    for (size_t i = from; i < end; i++) {
        CHECK(p[i] == 0);
    }
}

/* Objects of `old` bytes are freed, so that their memory serves objects of `size` bytes. */
static void reuse(size_t old, size_t size, int count)
{
    static unsigned char *held[MANY];
    for (int i = 0; i < count; i++) {
        held[i] = malloc(opaque(old));
        CHECK(held[i] != NULL);
        memset(held[i], 'x', old);
    }
    for (int i = 0; i < count; i++) {
        free(held[i]);
    }
    for (int i = 0; i < count; i++) {
        held[i] = malloc(opaque(size));
        CHECK(held[i] != NULL);
        expect_zeros(held[i], 0, size);
    }
    for (int i = 0; i < count; i++) {
        free(held[i]);
    }
}

static void grow(size_t old, size_t size)
{
    unsigned char *p = malloc(opaque(old));
    CHECK(p != NULL);
    memset(p, 'x', old);
    p = realloc(p, opaque(size));
    CHECK(p != NULL);
    expect_zeros(p, old, size);
    free(p);
}

/* There is no memory for another block, and little of this one is used. */
static void grow_in_place(size_t size)
{
    unsigned char *p = aligned_alloc(4096, opaque(100));
    CHECK(p != NULL);
    memset(p, 'x', 100);
    struct rlimit limit;
    CHECK(getrlimit(RLIMIT_AS, &limit) == 0);
    rlim_t before = limit.rlim_cur;
    limit.rlim_cur = (rlim_t)status_kib("VmSize:") << 10;
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
    void **all = take_all(size);
    unsigned char *grown = realloc(p, opaque(size));
    CHECK(grown == p);
    expect_zeros(p, 100, size);
    limit.rlim_cur = before;
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
    give_back(all);
    free(p);
}

int main(void)
{
    reuse(48, 200, MANY);
    reuse(900, 24, MANY);
    reuse(5000, 9000, 400);
    reuse(40000, 5000, 400);
    reuse(300000, 700000, 40);
    for (size_t size = 1; size < 70; size++) {
        for (size_t more = 1; more < 40; more++) {
            grow(size, size + more);
        }
    }
    grow(5000, 5100);
    grow(5000, 5007);
    grow(500000, 510000);
    grow(2 << 20, 3 << 20);
    grow((2 << 20) + 5, (2 << 20) + 9);
    grow(3 << 20, 40 << 20);
    grow_in_place(200);
    return 0;
}
