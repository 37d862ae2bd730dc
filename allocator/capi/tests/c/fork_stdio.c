/* fork while other threads hold locks of stdio and allocate: libc's fork waits for those locks, so it may hold none that an
 * allocation needs. */
#include "churn.h"
#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>

enum { FORKS = 100, LINE = 50000, HANG_SECONDS = 60 };

static atomic_int stop;
static FILE *lines;

/* Holds the stream's lock and allocates. */
static void *read_lines(void *unused)
{
    while (!atomic_load(&stop)) {
        char *line = NULL;
        size_t room = 0;
        rewind(lines);
        CHECK(getline(&line, &room, lines) == LINE + 1);
        free(line);
    }
    return unused;
}

/* Holds the lock of the list of streams and waits for a stream's. */
static void *flush(void *unused)
{
    while (!atomic_load(&stop)) {
        fflush(NULL);
    }
    return unused;
}

int main(void)
{
    alarm(HANG_SECONDS);
    lines = tmpfile();
    CHECK(lines != NULL);
    for (int i = 0; i < LINE; i++) {
        CHECK(fputc('x', lines) == 'x');
    }
    CHECK(fputc('\n', lines) == '\n');
    pthread_t reader, flusher;
    CHECK(pthread_create(&reader, NULL, read_lines, NULL) == 0);
    CHECK(pthread_create(&flusher, NULL, flush, NULL) == 0);
    for (int i = 0; i < FORKS; i++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            churn(3, 200);
            _exit(0);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child);
        CHECK(status == 0);
    }
    atomic_store(&stop, 1);
    CHECK(pthread_join(reader, NULL) == 0 && pthread_join(flusher, NULL) == 0);
    return 0;
}
