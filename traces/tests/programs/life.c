/* Everything that may go wrong around a recorder, once each, at sizes nobody else uses:
 * 100001.. calls of each kind, 200000+i threads, 300001 fork, 400001 after closing everything,
 * 500001 vfork, 600001 in a signal handler, 700001 after errno was set. */
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void *thread(void *argument) {
    free(malloc(200000 + (size_t)argument));
    if ((size_t)argument % 2 == 0) pthread_exit(NULL);
    return NULL;
}

static void handler(int signal) {
    (void)signal;
    free(malloc(600001));
}

int main(void) {
    char *p = malloc(100001);
    p = realloc(p, 100002);
    if (malloc_usable_size(p) < 100002) return 1;
    free(p);
    free(calloc(3, 100003));
    free(memalign(64, 100004));
    free(aligned_alloc(64, 100005));
    void *q;
    if (posix_memalign(&q, 128, 100006) != 0) return 1;
    free(q);
    free(valloc(100007));
    free(pvalloc(100008));
    free(reallocarray(NULL, 2, 100500));
    if (reallocarray(NULL, (size_t)-1, 3) != NULL || errno != ENOMEM) return 1;
    free(NULL);

    for (size_t i = 0; i < 40; i++) {
        pthread_t t;
        if (pthread_create(&t, NULL, thread, (void *)i) != 0) return 1;
        pthread_join(t, NULL);
    }

    char *inherited = malloc(300000);
    pid_t child = fork();
    if (child == 0) {
        free(inherited);
        free(malloc(300001));
        _exit(0);
    }
    waitpid(child, NULL, 0);
    free(inherited);

    for (int fd = 3; fd < 64; fd++) close(fd);
    for (int i = 0; i < 10000; i++) free(malloc(400001));

    if (vfork() == 0) {
        free(malloc(500001));
        _exit(0);
    }

    signal(SIGUSR1, handler);
    raise(SIGUSR1);

    errno = 4711;
    for (int i = 0; i < 10000; i++) free(malloc(700001));
    return errno == 4711 ? 0 : 1;
}
