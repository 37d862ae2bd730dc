/* dlopen of the library beside glibc's malloc, which alone moves the break; use in threads that outlive dlclose.
 * Argument: the library. */
#include "churn.h"
#include <dlfcn.h>
#include <pthread.h>

static void *(*their_malloc)(size_t);
static void *(*their_realloc)(void *, size_t);
static void *(*their_reallocarray)(void *, size_t, size_t);
static void (*their_free)(void *);
static pthread_barrier_t closed;
static uintptr_t start;

static void use(void)
{
    void *held[200];
    for (int i = 0; i < 200; i++) {
        held[i] = their_malloc(opaque((size_t)i * 37));
        CHECK(held[i] != NULL && !is_in_break(held[i], start));
        memset(held[i], i, (size_t)i * 37);
    }
    for (int i = 0; i < 200; i++) {
        held[i] = their_realloc(held[i], opaque((size_t)i * 74 + 1));
        CHECK(held[i] != NULL && !is_in_break(held[i], start));
        CHECK(i == 0 || ((unsigned char *)held[i])[i * 37 - 1] == i);
        held[i] = their_reallocarray(held[i], opaque((size_t)i + 1), 200); /* and not by glibc's realloc */
        CHECK(held[i] != NULL && !is_in_break(held[i], start));
    }
    for (int i = 0; i < 200; i++) {
        their_free(held[i]);
    }
    void *larger = their_malloc(opaque(100000));
    CHECK(larger != NULL && !is_in_break(larger, start));
    their_free(larger);
}

static void *thread(void *unused)
{
    (void)unused;
    use();
    churn(3, 500);                  /* glibc's, meanwhile */
    pthread_barrier_wait(&closed);  /* used before dlclose ... */
    pthread_barrier_wait(&closed);
    use();                          /* ... and after it */
    return NULL;                    /* exit hooks of a closed library run here */
}

int main(int count, char **arguments)
{
    CHECK(count == 2);
    start = start_of_break();
    void *glibc = malloc(100);
    CHECK(is_in_break(glibc, start));
    for (int round = 0; round < 3; round++) {
        void *library = dlopen(arguments[1], RTLD_NOW | RTLD_LOCAL);
        if (library == NULL) {
            dprintf(2, "%s\n", dlerror());
        }
        CHECK(library != NULL);
        *(void **)&their_malloc = dlsym(library, "malloc");
        *(void **)&their_realloc = dlsym(library, "realloc");
        *(void **)&their_reallocarray = dlsym(library, "reallocarray");
        *(void **)&their_free = dlsym(library, "free");
        CHECK(their_malloc != NULL && their_realloc != NULL && their_reallocarray != NULL && their_free != NULL);
        CHECK(their_malloc != malloc);
        pthread_t threads[4];
        CHECK(pthread_barrier_init(&closed, NULL, 5) == 0);
        for (int i = 0; i < 4; i++) {
            CHECK(pthread_create(&threads[i], NULL, thread, NULL) == 0);
        }
        use();
        pthread_barrier_wait(&closed);
        CHECK(dlclose(library) == 0);
        pthread_barrier_wait(&closed);
        for (int i = 0; i < 4; i++) {
            CHECK(pthread_join(threads[i], NULL) == 0);
        }
        churn(9, 1000);
    }
    free(glibc);
    return 0;
}
