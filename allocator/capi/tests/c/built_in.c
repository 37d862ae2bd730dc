/* Compiled twice: -DPLUGIN gives a library with the allocator in it; else the program that loads it (argument 1), whose
 * threads end, and which forks, after the library was closed. */
#include "check.h"
#ifdef PLUGIN
extern int allocator_check(void);
void use(void);
void use(void)
{
    void *held[100];
    for (int i = 0; i < 100; i++) {
        held[i] = malloc(opaque((size_t)i * 50));
        CHECK(held[i] != NULL);
        memset(held[i], i, (size_t)i * 50);
    }
    for (int i = 0; i < 100; i++) {
        held[i] = reallocarray(held[i], opaque((size_t)i + 1), 60);
        CHECK(held[i] != NULL && (i == 0 || *(unsigned char *)held[i] == i));
        free(held[i]);
    }
    CHECK(allocator_check() == 0);
}
#else
#include <dlfcn.h>
#include <pthread.h>
#include <sys/wait.h>

static void (*use)(void);
static pthread_barrier_t used, closed;

static void *thread(void *argument)
{
    use();
    pthread_barrier_wait(&used);
    pthread_barrier_wait(&closed);
    return argument; /* hooks of the closed library run here */
}

int main(int count, char **arguments)
{
    CHECK(count == 2);
    void *library = dlopen(arguments[1], RTLD_NOW);
    if (library == NULL) {
        dprintf(2, "%s\n", dlerror());
    }
    CHECK(library != NULL);
    *(void **)&use = dlsym(library, "use");
    CHECK(use != NULL);
    pthread_t threads[4];
    CHECK(pthread_barrier_init(&used, NULL, 5) == 0 && pthread_barrier_init(&closed, NULL, 5) == 0);
    for (int i = 0; i < 4; i++) {
        CHECK(pthread_create(&threads[i], NULL, thread, NULL) == 0);
    }
    pthread_barrier_wait(&used);
    CHECK(dlclose(library) == 0);
    pthread_barrier_wait(&closed);
    for (int i = 0; i < 4; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    return 0;
}
#endif
