/* Fourteen threads take all but one unit of a ring of 1 MiB: `ring ended|idle`. Then the main thread
 * makes more calls than the whole ring holds, of 7777 bytes. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { THREADS = 14 };
static pthread_barrier_t all, done;
static int idle;

static void *work(void *argument) {
    free(malloc(100));
    pthread_barrier_wait(&all);
    if (idle) pthread_barrier_wait(&done);
    return NULL;
}

int main(int count, char **arguments) {
    if (count != 2) return 2;
    idle = strcmp(arguments[1], "idle") == 0;
    pthread_t threads[THREADS];
    pthread_barrier_init(&all, NULL, THREADS + 1);
    pthread_barrier_init(&done, NULL, THREADS + 1);
    for (int i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, work, NULL) != 0) return 3;
    pthread_barrier_wait(&all);
    for (int i = 0; !idle && i < THREADS; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < 100000; i++) free(malloc(7777));
    _exit(0);
}
