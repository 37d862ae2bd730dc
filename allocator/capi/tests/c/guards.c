/* Prints how many slices of the segments that hold 64 objects of 300,000 bytes cannot be read, up to the first one
 * behind a segment's last object: the guards between and behind spans, without slices that were never used. */
#include "check.h"

enum { OBJECTS = 64, BYTES = 300000, SLICE = 32 << 10, SEGMENT = 4 << 20 };

int main(void)
{
    int ends[2];
    char sink[4096];
    CHECK(pipe2(ends, O_NONBLOCK) == 0);
    uintptr_t last = 0, highest = 0;
    int guards = 0;
    for (int i = 0; i < OBJECTS; i++) {
        char *object = opaque_pointer(malloc(BYTES));
        CHECK(object != NULL);
        memset(object, 1, BYTES);
        uintptr_t segment = (uintptr_t)object & ~(uintptr_t)(SEGMENT - 1);
        if (i > 0 && segment == last) {
            highest = (uintptr_t)object > highest ? (uintptr_t)object : highest;
            continue;
        }
        if (last != 0) {
            for (int slice = 0; slice < SEGMENT / SLICE; slice++) {
                if (write(ends[1], (char *)last + slice * SLICE, 1) == 1) {
                    CHECK(read(ends[0], sink, sizeof sink) == 1);
                } else {
                    CHECK(errno == EFAULT);
                    guards++;
                    if (last + slice * SLICE > highest) {
                        break;
                    }
                }
            }
        }
        last = segment;
        highest = (uintptr_t)object;
    }
    printf("%d\n", guards);
    return 0;
}
