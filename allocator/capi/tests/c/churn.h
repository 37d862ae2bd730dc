/* A small random workload that checks what it reads back: churn(seed, steps) allocates, resizes and frees objects of
 * many sizes, each filled with a pattern. What it holds at the end it frees. */
#ifndef CHURN_H
#define CHURN_H
#include "check.h"

struct churn {
    uint64_t state;
    struct {
        unsigned char *p;
        size_t size;
        unsigned char fill;
    } slots[64];
};

static inline uint64_t churn_random(struct churn *c)
{
    c->state ^= c->state << 13;
    c->state ^= c->state >> 7;
    c->state ^= c->state << 17;
    return c->state;
}

static inline size_t churn_size(struct churn *c)
{
    uint64_t r = churn_random(c);
    switch (r % 64) {
    case 0: return (r >> 8) % (3u << 20);
    case 1: case 2: return (r >> 8) % 200000;
    case 3: case 4: case 5: case 6: return (r >> 8) % 20000;
    default: return (r >> 8) % 1200;
    }
}

static inline void churn_check(struct churn *c, int k)
{
    size_t size = c->slots[k].size;
    unsigned char *p = c->slots[k].p;
    if (p != NULL && size > 0) {
        CHECK(p[0] == c->slots[k].fill && p[size / 2] == c->slots[k].fill && p[size - 1] == c->slots[k].fill);
    }
}

static inline void churn_fill(struct churn *c, int k, unsigned char *p, size_t size)
{
    CHECK(p != NULL);
    c->slots[k].p = p;
    c->slots[k].size = size;
    c->slots[k].fill = (unsigned char)churn_random(c);
    if (size > 0) {
        p[0] = p[size / 2] = p[size - 1] = c->slots[k].fill;
    }
}

static inline void churn_steps(struct churn *c, int steps)
{
    for (int i = 0; i < steps; i++) {
        int k = (int)(churn_random(c) % 64);
        churn_check(c, k);
        size_t size = churn_size(c);
        uint64_t what = churn_random(c) % 8;
        if (c->slots[k].p != NULL && what < 5) {
            free(c->slots[k].p);
            c->slots[k].p = NULL;
        } else if (c->slots[k].p != NULL) {
            unsigned char fill = c->slots[k].fill;
            size_t kept = c->slots[k].size < size + 1 ? c->slots[k].size : size + 1;
            unsigned char *p = realloc(c->slots[k].p, size + 1);
            CHECK(p != NULL && (kept == 0 || p[0] == fill));
            churn_fill(c, k, p, size + 1);
        } else if (what == 7) {
            churn_fill(c, k, calloc(1, size), size);
        } else if (what == 6) {
            churn_fill(c, k, aligned_alloc((size_t)16 << (churn_random(c) % 9), size), size);
        } else {
            churn_fill(c, k, malloc(size), size);
        }
    }
}

static inline void churn_end(struct churn *c)
{
    for (int k = 0; k < 64; k++) {
        churn_check(c, k);
        free(c->slots[k].p);
        c->slots[k].p = NULL;
    }
}

static inline void churn(uint64_t seed, int steps)
{
    struct churn c = {.state = seed * 2654435761u + 88172645463325252u};
    churn_steps(&c, steps);
    churn_end(&c);
}
#endif
