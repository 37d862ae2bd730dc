/* A child of vfork allocates on the thread that waits for it, which had no heap. The heap stays with that thread after the
 * child has ended: another thread gets one of its own. With an argument the first allocation of all is a child's. */
#include "check.h"
#include <allocator.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/wait.h>

static pthread_barrier_t begun, step;
static pid_t first, second;

static void allocate_in_child(void)
{
    pid_t child = vfork();
    if (child == 0) {
        for (int i = 0; i < 200; i++) {
            opaque_pointer(malloc(opaque(5000)));
        }
        _exit(0);
    }
    int status;
    CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0);
}

static void *with_child(void *kept)
{
    first = gettid();
    allocate_in_child();
    pthread_barrier_wait(&begun);
    pthread_barrier_wait(&step); /* the other thread has a heap */
    for (int i = 0; i < 200; i++) {
        kept = opaque_pointer(malloc(opaque(5000)));
    }
    pthread_barrier_wait(&step);
    pthread_barrier_wait(&step); /* the report is written */
    return kept;
}

static void *without(void *kept)
{
    second = gettid();
    kept = opaque_pointer(malloc(opaque(5000)));
    pthread_barrier_wait(&step);
    pthread_barrier_wait(&step);
    pthread_barrier_wait(&step);
    return kept;
}

/* Whether a line of a report begins with a thread's id. */
static int is_listed(const char *report, pid_t thread)
{
    char number[16];
    snprintf(number, sizeof number, "%d ", thread);
    for (const char *line = report; line != NULL; line = strchr(line, '\n')) {
        line += strspn(line, "\n ");
        if (strncmp(line, number, strlen(number)) == 0) {
            return 1;
        }
    }
    return 0;
}

int main(int count, char **arguments)
{
    (void)arguments;
    if (count > 1) {
        allocate_in_child();
    }
    static char report[1 << 16];
    pthread_t threads[2];
    CHECK(pthread_barrier_init(&begun, NULL, 2) == 0);
    CHECK(pthread_barrier_init(&step, NULL, 3) == 0);
    CHECK(pthread_create(&threads[0], NULL, with_child, NULL) == 0);
    pthread_barrier_wait(&begun);
    CHECK(pthread_create(&threads[1], NULL, without, NULL) == 0);
    for (int i = 0; i < 2; i++) {
        pthread_barrier_wait(&step);
    }
    int file = memfd_create("report", 0);
    CHECK(file >= 0 && allocator_report(file) == 0);
    CHECK(pread(file, report, sizeof report - 1, 0) > 0);
    const char *listed = strstr(report, "       thread      spans");
    CHECK(listed != NULL && is_listed(listed, first) && is_listed(listed, second));
    pthread_barrier_wait(&step);
    for (int i = 0; i < 2; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    CHECK(allocator_check() == 0);
    return 0;
}
