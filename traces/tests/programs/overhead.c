/* Processor time per call of malloc and free: `overhead THREADS ROUNDS` prints nanoseconds.
 * Each round allocates 64 objects and frees them. Processor time and not wall time, so that other
 * programs on the machine count little; what the kernel does for the thread counts. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { OBJECTS = 64, MOST_THREADS = 64 };
static long rounds;

static void *work(void *result) {
    struct timespec begin, end;
    void *objects[OBJECTS];
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &begin);
    for (long round = 0; round < rounds; round++) {
        for (int i = 0; i < OBJECTS; i++) objects[i] = malloc(16 + 8 * (i % 16));
        for (int i = 0; i < OBJECTS; i++) free(objects[i]);
    }
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end);
    double ns = (end.tv_sec - begin.tv_sec) * 1e9 + (end.tv_nsec - begin.tv_nsec);
    *(double *)result = ns / (2.0 * OBJECTS * rounds);
    return NULL;
}

int main(int count, char **arguments) {
    if (count != 3) return 2;
    int threads = atoi(arguments[1]);
    rounds = atol(arguments[2]);
    if (threads < 1 || threads > MOST_THREADS) return 2;
    pthread_t ids[MOST_THREADS];
    double results[MOST_THREADS], sum = 0;
    for (int i = 0; i < threads; i++) pthread_create(&ids[i], NULL, work, &results[i]);
    for (int i = 0; i < threads; i++) {
        pthread_join(ids[i], NULL);
        sum += results[i];
    }
    printf("%.2f\n", sum / threads);
    return 0;
}
