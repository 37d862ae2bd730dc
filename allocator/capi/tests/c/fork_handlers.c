/* Fork handlers of the program's own that allocate, registered before anything was allocated and after: the first
   run inside those of whoever registers at the first allocation, the second around them. */
#include "churn.h"
#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>

static atomic_int stop, calls;

static void handle(void)
{
    static uint64_t seed = 17;
    churn(seed++, 300);
    atomic_fetch_add(&calls, 1);
}

/* Before main and, but for what the loader needs, before any allocation. */
__attribute__((constructor(101))) static void early(void)
{
    if (pthread_atfork(handle, handle, handle) != 0) {
        abort();
    }
}

static void *work(void *argument)
{
    uint64_t seed = (uintptr_t)argument;
    while (!atomic_load(&stop)) {
        churn(seed++, 300);
    }
    return NULL;
}

int main(void)
{
    pthread_t threads[3];
    churn(1, 100);
    CHECK(pthread_atfork(handle, handle, handle) == 0);
    for (uintptr_t i = 0; i < 3; i++) {
        CHECK(pthread_create(&threads[i], NULL, work, (void *)(i + 1)) == 0);
    }
    for (int i = 0; i < 40; i++) {
        int before = atomic_load(&calls);
        pid_t child = fork();
        CHECK(child >= 0);
        CHECK(atomic_load(&calls) == before + 4);
        if (child == 0) {
            churn((uint64_t)i, 500);
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
    return 0;
}
