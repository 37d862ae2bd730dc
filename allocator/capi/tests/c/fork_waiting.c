/* fork and _Fork from a signal handler that may have interrupted a wait for a lock: its holder is not there in the child, where the
 * interrupted call goes on all the same. */
#include "churn.h"
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>

enum { THREADS = 3, FORKS = 300, HANG_SECONDS = 60 };

int allocator_check(void) __attribute__((weak));
pid_t _Fork(void) __attribute__((weak));

static atomic_int forked, stop;
static int in_child; /* of the only thread there */

static void fork_now(int number)
{
    int kept = errno;
    pid_t child = number == SIGUSR2 && _Fork != NULL ? _Fork() : fork();
    if (child == 0) {
        alarm(HANG_SECONDS);
        in_child = 1;
    } else {
        int status;
        CHECK(child > 0);
        CHECK(waitpid(child, &status, 0) == child);
        CHECK(status == 0);
        atomic_fetch_add(&forked, 1);
    }
    errno = kept;
}

/* Objects that nobody keeps ready, above the mmap threshold and below it: a lock is held most of the time. */
static void lock_often(void)
{
    void *p = malloc(opaque(3 << 20)), *q = malloc(opaque(5000));
    CHECK(p != NULL && q != NULL);
    free(p);
    free(q);
}

static void *hold(void *unused)
{
    while (!atomic_load(&stop)) {
        lock_often();
    }
    return unused;
}

static void *wait_and_fork(void *unused)
{
    while (!atomic_load(&stop)) {
        lock_often();
        if (in_child) {
            churn(7, 300);
            CHECK(allocator_check == NULL || allocator_check() == 0);
            _exit(0);
        }
    }
    return unused;
}

int main(void)
{
    pthread_t holders[THREADS], waiter;
    for (int i = 0; i < THREADS; i++) {
        CHECK(pthread_create(&holders[i], NULL, hold, NULL) == 0);
    }
    CHECK(pthread_create(&waiter, NULL, wait_and_fork, NULL) == 0);
    for (int i = 0; i < FORKS; i++) {
        /* With SA_RESTART the kernel itself goes back to sleep after the handler. */
        struct sigaction action = {.sa_handler = fork_now, .sa_flags = i % 2 == 0 ? SA_RESTART : 0};
        int number = i % 4 < 2 ? SIGUSR1 : SIGUSR2;
        CHECK(sigaction(number, &action, NULL) == 0);
        CHECK(pthread_kill(waiter, number) == 0);
        while (atomic_load(&forked) <= i) {
            usleep(100);
        }
    }
    atomic_store(&stop, 1);
    for (int i = 0; i < THREADS; i++) {
        CHECK(pthread_join(holders[i], NULL) == 0);
    }
    CHECK(pthread_join(waiter, NULL) == 0);
    return 0;
}
