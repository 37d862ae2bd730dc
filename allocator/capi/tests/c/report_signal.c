/* Signals that ask for a report (report=usr1) interrupt threads that allocate all the time. The argument: how many. */
#include "churn.h"
#include <pthread.h>
#include <signal.h>

static volatile int stop;

static void *work(void *argument)
{
    struct churn c = {.state = (uintptr_t)argument};
    while (!stop) {
        churn_steps(&c, 16);
    }
    churn_end(&c);
    return NULL;
}

int main(int count, char **arguments)
{
    CHECK(count == 2);
    int threads = atoi(arguments[1]);
    CHECK(threads >= 1 && threads <= 4);
    CHECK(malloc(opaque(1)) != NULL); /* from here on the signals have a handler */
    pthread_t thread[4];
    for (uintptr_t i = 0; i < (uintptr_t)threads; i++) {
        CHECK(pthread_create(&thread[i], NULL, work, (void *)(i * 977 + 88172645463325252u)) == 0);
    }
    for (int i = 0; i < 1000; i++) {
        CHECK(pthread_kill(thread[i % threads], SIGUSR1) == 0);
        if (i % 5 == 0) {
            usleep(100);
        }
    }
    stop = 1;
    for (int i = 0; i < threads; i++) {
        CHECK(pthread_join(thread[i], NULL) == 0);
    }
    return 0;
}
