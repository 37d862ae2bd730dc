/* malloc before any constructor ran, in constructors, in thread-exit destructors of every round, after them, in
 * destructors and in atexit. */
#include "churn.h"
#include <pthread.h>

static void *earliest, *early;

static void before_everything(void)
{
    earliest = malloc(opaque(100));
    churn(1, 100);
}
__attribute__((section(".preinit_array"), used)) static void (*const first)(void) = before_everything;

__attribute__((constructor(101))) static void constructor(void)
{
    early = malloc(opaque(5000));
    churn(2, 100);
}

__attribute__((destructor(101))) static void destructor(void)
{
    free(early);
    churn(3, 100);
}

static void at_exit(void)
{
    free(earliest);
    churn(4, 100);
}

static pthread_key_t keys[40];
static int rounds;

/* Runs in every round of destructors that there is, hence also after the allocator's own. */
static void at_thread_end(void *value)
{
    churn((uintptr_t)value, 50);
    free(value);
    rounds++;
    for (int i = 0; i < 40; i += 13) {
        if (pthread_getspecific(keys[i]) == NULL) {
            pthread_setspecific(keys[i], malloc(opaque(33 + (size_t)i)));
        }
    }
}

static void *thread(void *unused)
{
    (void)unused;
    for (int i = 0; i < 40; i++) {
        CHECK(pthread_setspecific(keys[i], malloc(opaque(10 + (size_t)i))) == 0);
    }
    churn(6, 500);
    return NULL;
}

int main(void)
{
    CHECK(earliest != NULL && early != NULL);
    CHECK(atexit(at_exit) == 0);
    for (int i = 0; i < 40; i++) {
        CHECK(pthread_key_create(&keys[i], at_thread_end) == 0);
    }
    for (int i = 0; i < 50; i++) {
        pthread_t one;
        CHECK(pthread_create(&one, NULL, thread, NULL) == 0);
        CHECK(pthread_join(one, NULL) == 0);
    }
    CHECK(rounds > 50 * 40);
    return 0;
}
