/* fork in a threaded process: both sides keep allocating, the child starts threads of its own. */
#include "churn.h"
#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>

int allocator_check(void) __attribute__((weak));

static atomic_int stop;
static struct churn inherited;

static void *work(void *argument)
{
    uint64_t seed = (uintptr_t)argument;
    while (!atomic_load(&stop)) {
        churn(seed++, 500);
    }
    return NULL;
}

static void *once(void *argument)
{
    churn((uintptr_t)argument, 500);
    return NULL;
}

int main(int count, char **arguments)
{
    int forks = count > 1 ? atoi(arguments[1]) : 300;
    pthread_t threads[4];
    for (uintptr_t i = 0; i < 4; i++) {
        CHECK(pthread_create(&threads[i], NULL, work, (void *)(i + 1)) == 0);
    }
    inherited.state = 4711;
    for (int i = 0; i < forks; i++) {
        churn_steps(&inherited, 50);
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            churn_steps(&inherited, 200); /* frees and resizes what the parent allocated */
            churn((uint64_t)i, 500);
            if (i % 4 == 0) {
                pthread_t thread;
                CHECK(pthread_create(&thread, NULL, once, (void *)7) == 0);
                CHECK(pthread_join(thread, NULL) == 0);
            }
            if (i % 8 == 0) { /* and forks again */
                pid_t grandchild = fork();
                CHECK(grandchild >= 0);
                if (grandchild == 0) {
                    churn_steps(&inherited, 200);
                    churn_end(&inherited);
                    _exit(0);
                }
                int status;
                CHECK(waitpid(grandchild, &status, 0) == grandchild && status == 0);
            }
            if (allocator_check != NULL) CHECK(allocator_check() == 0);
            churn_end(&inherited);
            _exit(0);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child);
        CHECK(status == 0);
    }
    atomic_store(&stop, 1);
    for (int i = 0; i < 4; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    churn_end(&inherited);
    return 0;
}
