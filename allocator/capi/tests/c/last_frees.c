/* What libc frees for a thread behind its last destructor leaves nothing behind, however many threads there were. */
#include "check.h"
#include <pthread.h>

enum { AT_ONCE = 64, ROUNDS = 60 };

static void *work(void *unused)
{
    CHECK(strerror(opaque(9999)) != NULL); /* its text belongs to the thread */
    return unused;
}

static void run(int rounds)
{
    for (int round = 0; round < rounds; round++) {
        pthread_t threads[AT_ONCE];
        for (int i = 0; i < AT_ONCE; i++) {
            CHECK(pthread_create(&threads[i], NULL, work, NULL) == 0);
        }
        for (int i = 0; i < AT_ONCE; i++) {
            CHECK(pthread_join(threads[i], NULL) == 0);
        }
    }
}

int main(void)
{
    run(10);
    long before = status_kib("VmRSS");
    run(ROUNDS);
    long grown = status_kib("VmRSS") - before;
    CHECK(grown < ROUNDS * AT_ONCE); /* less than a quarter of a page a thread */
    return 0;
}
