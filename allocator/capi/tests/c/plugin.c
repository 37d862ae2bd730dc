/* Compiled twice: -DPLUGIN gives a library that allocates when it comes and goes; else the program that loads it
 * (argument 1) again and again, from several threads. */
#include "churn.h"
#ifdef PLUGIN
static void *held;
__attribute__((constructor)) static void comes(void) { held = malloc(opaque(3000)); }
__attribute__((destructor)) static void goes(void) { free(held); }
void *make(size_t size);
void *make(size_t size) { return calloc(1, size); }
#else
#include <dlfcn.h>
#include <pthread.h>
static const char *path;
static void *thread(void *argument)
{
    for (int i = 0; i < 100; i++) {
        void *library = dlopen(path, RTLD_NOW);
        CHECK(library != NULL);
        void *(*make)(size_t);
        *(void **)&make = dlsym(library, "make");
        CHECK(make != NULL);
        void *p = make(opaque(100 + (size_t)i));
        CHECK(dlclose(library) == 0);
        free(p); /* outlives who made it */
        churn((uintptr_t)argument, 50);
    }
    return NULL;
}
int main(int count, char **arguments)
{
    CHECK(count == 2);
    path = arguments[1];
    pthread_t threads[4];
    for (uintptr_t i = 0; i < 4; i++) {
        CHECK(pthread_create(&threads[i], NULL, thread, (void *)(i + 1)) == 0);
    }
    for (int i = 0; i < 4; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    return 0;
}
#endif
