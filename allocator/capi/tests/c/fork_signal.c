/* fork from a signal handler that may have interrupted malloc; the child ends at once, the parent goes on. And a
 * thread is interrupted all the time by signals that do nothing. */
#include "churn.h"
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/time.h>
#include <sys/wait.h>

static atomic_int forked, ticks;

static void fork_now(int number)
{
    (void)number;
    int kept = errno;
    pid_t child = fork();
    if (child == 0) {
        _exit(0);
    }
    if (child > 0) {
        int status;
        while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
        }
        if (status != 0) {
            _exit(8);
        }
        atomic_fetch_add(&forked, 1);
    }
    errno = kept;
}

static void tick(int number)
{
    (void)number;
    atomic_fetch_add(&ticks, 1);
    errno = 4711; /* a handler that does not keep errno must not make malloc fail */
}

static atomic_int stop;
static void *work(void *argument)
{
    while (!atomic_load(&stop)) {
        churn((uintptr_t)argument, 300);
    }
    return NULL;
}

int main(void)
{
    struct sigaction action = {.sa_handler = fork_now, .sa_flags = SA_RESTART};
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    action.sa_handler = tick;
    CHECK(sigaction(SIGALRM, &action, NULL) == 0);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, work, (void *)5) == 0);
    struct itimerval every = {{0, 200}, {0, 200}};
    CHECK(setitimer(ITIMER_REAL, &every, NULL) == 0);
    for (int i = 0; i < 200; i++) {
        CHECK(pthread_kill(thread, SIGUSR1) == 0);
        churn((uint64_t)i, 300);
        while (atomic_load(&forked) <= i) {
            churn((uint64_t)i, 20);
        }
    }
    struct itimerval never = {{0, 0}, {0, 0}};
    CHECK(setitimer(ITIMER_REAL, &never, NULL) == 0);
    atomic_store(&stop, 1);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(atomic_load(&forked) == 200);
    CHECK(atomic_load(&ticks) > 0);
    return 0;
}
