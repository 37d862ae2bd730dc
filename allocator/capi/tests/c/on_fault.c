/* A program that answers faults itself, in a mode that finds them: it is told what, where and how large, goes on as if
 * the wrong call had not been made, and ends by abort again once it has taken its function back. */
#include "check.h"
#include <allocator.h>
#include <signal.h>
#include <sys/wait.h>

static int times;
static char last[128];
static void *where;
static size_t bytes;

static void note(const char *what, void *object, size_t size)
{
    times++;
    strncpy(last, what, sizeof last - 1);
    where = object;
    bytes = size;
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

    object = opaque_pointer(malloc(100));
    free(object);
    allocator_on_fault(NULL);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        free(opaque_pointer(object));
        _exit(0);
    }
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT && times == 3);
    return 0;
}
