/* Somebody else moves the break between our calls, gives it back, or blocks it: everyone's bytes stay intact. */
#include "churn.h"
#include <sys/mman.h>

#define PIECES 64

int main(void)
{
    struct churn ours = {.state = 17};
    unsigned char *pieces[PIECES];
    for (int i = 0; i < PIECES; i++) {
        churn_steps(&ours, 300);
        pieces[i] = sbrk(12345);
        if (pieces[i] == (void *)-1) { /* what lies in the way is the allocator's right */
            pieces[i] = NULL;
            continue;
        }
        memset(pieces[i], i, 12345);
    }
    churn_steps(&ours, 3000);
    for (int i = 0; i < PIECES; i++) {
        for (int at = 0; pieces[i] != NULL && at < 12345; at++) {
            CHECK(pieces[i][at] == i);
        }
    }
    /* Give the last piece back, if nothing has come to lie behind it. */
    if (pieces[PIECES - 1] != NULL && sbrk(0) == pieces[PIECES - 1] + 12345) {
        CHECK(sbrk(-12345) == pieces[PIECES - 1] + 12345);
    }
    churn_steps(&ours, 3000);

    /* A foreign mapping right behind the break: it cannot grow any more. */
    uintptr_t end = ((uintptr_t)sbrk(0) + 4095) & ~(uintptr_t)4095;
    void *wall = mmap((void *)end, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    CHECK(wall == (void *)end);
    memset(wall, 0x33, 4096);
    errno = 0;
    CHECK(sbrk(1 << 20) == (void *)-1);
    void *held[3000];
    for (int i = 0; i < 3000; i++) { /* 24 MB of small objects: served by mmap instead */
        held[i] = malloc(opaque(8000));
        CHECK(held[i] != NULL);
        memset(held[i], i, 8000);
    }
    churn_steps(&ours, 3000);
    for (int i = 0; i < 3000; i++) {
        CHECK(((unsigned char *)held[i])[7999] == (unsigned char)i);
        free(held[i]);
    }
    churn_end(&ours);
    for (int at = 0; at < 4096; at++) {
        CHECK(((unsigned char *)wall)[at] == 0x33);
    }
    return 0;
}
