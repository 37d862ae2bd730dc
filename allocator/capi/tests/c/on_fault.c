/* A program that answers faults itself, in a mode that finds them: it is told what, where and how large, goes on as if
 * the wrong call had not been made, and ends by abort again once it has taken its function back. After a write into a
 * freed object it ends all the same, and is told once. */
#include "check.h"
#include <allocator.h>
#include <signal.h>
#include <sys/wait.h>

static int times;
static int heard = -1; /* gets a byte for each call, if it is a descriptor */
static char last[128];
static void *where;
static size_t bytes;

static void note(const char *what, void *object, size_t size)
{
    times++;
    strncpy(last, what, sizeof last - 1);
    where = object;
    bytes = size;
    if (heard >= 0) {
        CHECK(write(heard, "x", 1) == 1);
    }
}

/* Writes into a freed object between two live ones, and allocates until somebody comes upon it. */
static void write_into_freed(void)
{
    char *before = malloc(opaque(100)), *freed = malloc(opaque(100)), *behind = malloc(opaque(100));
    CHECK(before != NULL && freed != NULL && behind != NULL);
    free(freed);
    volatile char *stale = opaque_pointer(freed);
    *stale ^= 1;
    for (int i = 0; i < 10000; i++) {
        opaque_pointer(malloc(opaque(100)));
        free(opaque_pointer(malloc(opaque(100))));
    }
}

/* Runs `act` in a child, which must end by abort; returns how often it was told of a fault. */
static int ends_by_abort(void (*act)(void))
{
    int ends[2];
    CHECK(pipe(ends) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        heard = ends[1];
        act();
        _exit(0);
    }
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    close(ends[1]);
    char told[16];
    int count = (int)read(ends[0], told, sizeof told);
    CHECK(count >= 0);
    close(ends[0]);
    return count;
}

static void *freed_twice;
static void free_again(void)
{
    free(opaque_pointer(freed_twice));
}

int main(void)
{
    CHECK(allocator_configure("no=such") == -1);
    allocator_on_fault(note);
    char *object = opaque_pointer(malloc(100));
    CHECK(object != NULL && times == 0);
    free(object);
    free(opaque_pointer(object));
    CHECK(times == 1 && strcmp(last, "double free (check double-free)") == 0);
    CHECK(where == object && (bytes == 0 || bytes >= 100));

    char *live = opaque_pointer(malloc(200));
    free(opaque_pointer(live + 32));
    CHECK(times == 2 && strstr(last, "interior") != NULL && where == live + 32);
    char outside[64] __attribute__((aligned(16)));
    free(opaque_pointer(outside));
    CHECK(times == 3 && strstr(last, "foreign") != NULL && where == outside);
    memset(live, 1, 200);
    free(live);
    CHECK(times == 3 && allocator_check() == 0);

    /* One wrong call is told of once, by its own name. */
    object = opaque_pointer(malloc(100));
    free(object);
    free_sized(opaque_pointer(object), opaque(100));
    CHECK(times == 4 && strcmp(last, "double free (check double-free)") == 0);
    free_aligned_sized(opaque_pointer(object), opaque(16), opaque(100));
    CHECK(times == 5 && strcmp(last, "double free (check double-free)") == 0);

    CHECK(ends_by_abort(write_into_freed) == 1);
    freed_twice = object;
    allocator_on_fault(NULL);
    CHECK(ends_by_abort(free_again) == 0 && times == 5);
    return 0;
}
