/* `emptied HOW SIZE`: writes into a freed object of SIZE bytes, whose thread then empties its quarantine: by malloc_trim,
 * or because it ends. With HOW=numbers, nothing is wrong: objects that another thread freed come back all zero. */
#include "check.h"
#include <malloc.h>
#include <pthread.h>

static size_t size;

static void *write_into_freed(void *_)
{
    (void)_;
    volatile char *p = malloc(size);
    CHECK(p != NULL);
    for (size_t i = 0; i < size; i++) {
        p[i] = 'x';
    }
    free((void *)p);
    p[8] = 1;
    return NULL;
}

enum { COUNT = 4000 };
static char *objects[COUNT];

static void *free_all(void *_)
{
    (void)_;
    for (int i = 0; i < COUNT; i++) {
        free(objects[i]);
    }
    return NULL;
}

static void in_thread(void *(*run)(void *))
{
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, run, NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
}

int main(int count, char **arguments)
{
    CHECK(count == 3);
    size = opaque(strtoul(arguments[2], NULL, 10));
    if (strcmp(arguments[1], "trim") == 0) {
        write_into_freed(NULL);
        malloc_trim(0);
    } else if (strcmp(arguments[1], "end") == 0) {
        in_thread(write_into_freed);
    } else {
        for (int round = 0; round < 3; round++) {
            for (int i = 0; i < COUNT; i++) {
                objects[i] = malloc(size);
                CHECK(objects[i] != NULL);
                for (size_t at = 0; at < size; at++) {
                    CHECK(objects[i][at] == 0);
                }
                memset(objects[i], 'x', size);
            }
            in_thread(free_all);
        }
    }
    return 0;
}
