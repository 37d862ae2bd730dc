/* The main thread forks while others free its objects and visit its heap all the time. Whatever of a visit the child
   sees, its heap is whole: every byte written before is there, and all can be freed and allocated. */
#include "check.h"
#include <allocator.h>
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>

enum { MINE = 1000, THEIRS = 512, FORKS = 500 };

static unsigned char *mine[MINE];
static _Atomic(unsigned char *) theirs[THEIRS];
static atomic_int over;

static size_t next(size_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

/* Medium ones, mostly: their spans change while visitors are there. */
static unsigned char *make(size_t *state)
{
    size_t size = 16 + next(state) % ((size_t)512 << next(state) % 6);
    unsigned char *object = malloc(opaque(size));
    CHECK(object != NULL);
    memcpy(object, &size, sizeof size);
    object[size - 1] = (unsigned char)size;
    return object;
}

static void drop(unsigned char *object)
{
    if (object == NULL) return;
    size_t size;
    memcpy(&size, object, sizeof size);
    CHECK(size >= 16 && object[size - 1] == (unsigned char)size);
    free(object);
}

static void *free_theirs(void *unused)
{
    size_t state = 7;
    while (!over) drop(atomic_exchange(&theirs[next(&state) % THEIRS], NULL));
    return unused;
}

static void *visit(void *unused)
{
    size_t state = 3;
    drop(make(&state)); /* who has a heap looks after those of others */
    while (!over) malloc_trim(0);
    return unused;
}

static void change(size_t *state, int count)
{
    for (int i = 0; i < count; i++) {
        size_t at = next(state) % MINE;
        drop(mine[at]);
        mine[at] = next(state) % 3 ? make(state) : NULL;
        drop(atomic_exchange(&theirs[next(state) % THEIRS], make(state)));
    }
}

int main(void)
{
    size_t state = 1;
    pthread_t threads[2];
    CHECK(pthread_create(&threads[0], NULL, free_theirs, NULL) == 0);
    CHECK(pthread_create(&threads[1], NULL, visit, NULL) == 0);
    for (int round = 0; round < FORKS; round++) {
        change(&state, 100);
        usleep((useconds_t)(next(&state) % 200)); /* somewhere in a visit, with luck */
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            change(&state, 2000);
            CHECK(allocator_check() == 0);
            for (int i = 0; i < MINE; i++) drop(mine[i]);
            for (int i = 0; i < THEIRS; i++) drop(theirs[i]);
            malloc_trim(0);
            CHECK(allocator_check() == 0);
            _exit(0);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child);
        CHECK(status == 0);
    }
    over = 1;
    for (int i = 0; i < 2; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(allocator_check() == 0);
    return 0;
}
