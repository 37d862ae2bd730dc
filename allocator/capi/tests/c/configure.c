/* allocator_configure before and after the first allocation: what counts only before it changes nothing later.
 * Arguments: the mode that the environment chose, and one to choose before the first allocation, if any. */
#include "check.h"
#include <allocator.h>
#include <pthread.h>
#include <signal.h>

static void *allocate(void *_)
{
    (void)_;
    char *p = malloc(opaque(100));
    CHECK(p != NULL);
    memset(p, 1, 100);
    free(p);
    return malloc(opaque(50));
}

static void is_late(const char *setting)
{
    errno = 0;
    CHECK(allocator_configure(setting) == -1 && errno == EINVAL);
}

int main(int count, char **arguments)
{
    CHECK(count >= 2);
    const char *mode = arguments[1];
    if (count > 2) {
        mode = arguments[2];
        CHECK(allocator_configure(mode) == 0);
        CHECK(allocator_configure("report=usr2") == 0);
        CHECK(allocator_configure("sbrk=off") == 0);
        CHECK(raise(SIGUSR2) == 0); /* would end the process */
    }
    char *start = sbrk(0);
    /* aligned, and the first of all: who serves it is found out by this call */
    char *mine = aligned_alloc(opaque(4096), 4096);
    CHECK(mine != NULL && (uintptr_t)mine % 4096 == 0);
    strcpy(mine, "mine");
    CHECK(count == 2 || sbrk(0) == start);

    is_late(strcmp(mode, "mode=classic") == 0 ? "mode=production" : "mode=classic");
    is_late(count > 2 ? "sbrk=on" : "sbrk=off");
    is_late("report=exit");
    CHECK(allocator_configure(mode) == 0);
    CHECK(allocator_configure(count > 2 ? "sbrk=off" : "sbrk=on") == 0);
    CHECK(allocator_configure(count > 2 ? "report=usr2" : "report=never") == 0);
    CHECK(allocator_configure("memory=low") == 0);
    is_late("lock=arena");

    pthread_t thread;
    void *theirs;
    CHECK(pthread_create(&thread, NULL, allocate, NULL) == 0);
    CHECK(pthread_join(thread, &theirs) == 0);
    mine = realloc(mine, opaque(20000));
    CHECK(mine != NULL && strcmp(mine, "mine") == 0);
    allocator_stats();
    free(mine);
    free(theirs);
    CHECK(allocator_check() == 0);
    return 0;
}
