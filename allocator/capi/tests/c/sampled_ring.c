/* However many freed objects wait when sampling begins, no address comes back before others were freed, and nobody takes
 * what is handed out for written to. */
#include "check.h"
#include <allocator.h>
#include <sys/wait.h>

enum { MOST = 288, NEXT = 40, LATER = 600 };

static void begin_to_sample(int live, int waiting)
{
    static char *objects[MOST];
    for (int i = 0; i < live; i++) {
        objects[i] = malloc(opaque(8));
        CHECK(objects[i] != NULL);
    }
    for (int i = 0; i < waiting; i++) {
        free(objects[i]);
    }
    CHECK(allocator_configure("sample=1") == 0);
    CHECK(malloc(opaque(8)) != NULL);
    free(objects[waiting]);
    for (int i = 0; i < NEXT; i++) {
        char *next = malloc(opaque(8));
        CHECK(next != NULL && next != objects[waiting]);
        memset(next, 'x', 8);
    }
    CHECK(allocator_configure("sample=off") == 0);
    for (int i = 0; i < LATER; i++) {
        memset(malloc(opaque(8)), 'x', 8);
    }
}

int main(void)
{
    for (int live = MOST - 20; live < MOST; live++) {
        for (int waiting = 220; waiting < 250; waiting++) {
            pid_t child = fork();
            CHECK(child >= 0);
            if (child == 0) {
                begin_to_sample(live, waiting);
                _exit(0);
            }
            int status;
            CHECK(waitpid(child, &status, 0) == child);
            CHECK(status == 0);
        }
    }
    return 0;
}
