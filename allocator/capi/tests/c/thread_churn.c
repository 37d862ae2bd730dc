/* Threads born and joined by the thousand, each leaving some objects to others: memory stays flat. */
#include "churn.h"
#include <pthread.h>

static void *left[8];

static void *live(void *argument)
{
    uintptr_t index = (uintptr_t)argument;
    churn(index + 1, 40);
    free(left[index]); /* what the thread before us in this place left: freed by another thread */
    left[index] = malloc(opaque(100 + index * 500));
    CHECK(left[index] != NULL);
    memset(left[index], 1, 100 + index * 500);
    return NULL;
}

static void generations(int threads)
{
    for (int i = 0; i < threads; i += 8) {
        pthread_t batch[8];
        for (uintptr_t k = 0; k < 8; k++) {
            CHECK(pthread_create(&batch[k], NULL, live, (void *)k) == 0);
        }
        for (int k = 0; k < 8; k++) {
            CHECK(pthread_join(batch[k], NULL) == 0);
        }
    }
}

int main(int count, char **arguments)
{
    int threads = count > 1 ? atoi(arguments[1]) : 100000;
    generations(threads / 10);
    long before = status_kib("VmRSS:"), mapped = status_kib("VmSize:");
    generations(threads);
    long after = status_kib("VmRSS:"), mapped_after = status_kib("VmSize:");
    printf("%d threads: resident %ld -> %ld KiB, mapped %ld -> %ld KiB\n", threads, before, after, mapped, mapped_after);
    /* A leak of 64 bytes per thread would show as 6,250 KiB. */
    CHECK(after <= before + before / 10 + 4096);
    CHECK(mapped_after <= mapped + mapped / 4 + 65536);
    return 0;
}
