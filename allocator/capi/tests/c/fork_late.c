/* A thread born in the child of a fork may be the first to allocate there, and libc gives it the stack, and with it the
 * thread pointer, of a thread of the parent that held a lock at the fork. */
#include "churn.h"
#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>

enum { THREADS = 3, FORKS = 300 };

int allocator_check(void) __attribute__((weak));

static atomic_int stop;

/* Objects that nobody keeps ready: a lock is held most of the time. */
static void *lock_often(void *unused)
{
    while (!atomic_load(&stop)) {
        for (int i = 0; i < 50; i++) {
            void *p = malloc(opaque(3 << 20));
            CHECK(p != NULL);
            free(p);
        }
        void *aligned = aligned_alloc(64, opaque(1 << 20));
        CHECK(aligned != NULL);
        free(aligned);
    }
    return unused;
}

static void *use_everything(void *seed)
{
    for (size_t size = 16; size <= (size_t)4 << 20; size *= 4) {
        char *p = malloc(opaque(size));
        CHECK(p != NULL);
        p[size - 1] = 1;
        free(p);
    }
    churn((uintptr_t)seed, 200);
    return NULL;
}

int main(void)
{
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        CHECK(pthread_create(&threads[i], NULL, lock_often, NULL) == 0);
    }
    for (int i = 0; i < FORKS; i++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            pthread_t born[THREADS];
            for (uintptr_t k = 0; k < THREADS; k++) {
                CHECK(pthread_create(&born[k], NULL, use_everything, (void *)(k + 1)) == 0);
            }
            for (int k = 0; k < THREADS; k++) {
                CHECK(pthread_join(born[k], NULL) == 0);
            }
            use_everything((void *)9);
            if (allocator_check != NULL) CHECK(allocator_check() == 0);
            _exit(0);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child);
        CHECK(status == 0);
    }
    atomic_store(&stop, 1);
    for (int i = 0; i < THREADS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    return 0;
}
