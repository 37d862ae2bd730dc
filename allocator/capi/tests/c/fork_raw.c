/* _Fork and a raw fork by system call run no fork handlers; the child of a threaded process allocates all the same. */
#include "churn.h"
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <sys/wait.h>

int allocator_check(void) __attribute__((weak));

pid_t _Fork(void) __attribute__((weak));

static atomic_int stop;
static void *work(void *argument)
{
    while (!atomic_load(&stop)) {
        churn((uintptr_t)argument, 300);
    }
    return NULL;
}

static pid_t raw(void)
{
    return (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
}

int main(void)
{
    pthread_t threads[3];
    for (uintptr_t i = 0; i < 3; i++) {
        CHECK(pthread_create(&threads[i], NULL, work, (void *)(i + 1)) == 0);
    }
    static struct churn inherited = {.state = 99};
    for (int i = 0; i < 60; i++) {
        churn_steps(&inherited, 40);
        pid_t child = i % 2 == 0 && _Fork != NULL ? _Fork() : raw();
        CHECK(child >= 0);
        if (child == 0) {
            churn_steps(&inherited, 300);
            churn((uint64_t)i, 500);
            if (allocator_check != NULL) CHECK(allocator_check() == 0);
            churn_end(&inherited);
            _exit(0);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child);
        CHECK(status == 0);
    }
    atomic_store(&stop, 1);
    for (int i = 0; i < 3; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    churn_end(&inherited);
    return 0;
}
