/* Threads, or with the argument `fork` forked children, begin while recording is off. Then each has a
 * signal at every instruction of its first call that is recorded. From the FIRST on, when the call has
 * found no chunk of its own, the handler answers one signal of EVERY with free(NULL), or with as many
 * of them as the argument says, in each thread or child another one; how many there were is printed.
 * x86_64 only. */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { EVERY = 16, FIRST = 96 };
static volatile unsigned long steps, answer, *handled;
static unsigned long calls = 1;
static volatile int *gate;
static void *object;

static void handle(int number) {
    if (++steps < FIRST || (steps + answer) % EVERY != 0) return;
    for (unsigned long call = 0; call < calls; call++) {
        ++*handled;
        free(NULL);
    }
}

static void *work(void *done) {
    steps = 0;
    *gate = 1;
#ifdef __x86_64__
    __asm__ volatile("pushfq; orq $0x100, (%%rsp); popfq" ::: "cc", "memory");
    malloc_usable_size(object);
    __asm__ volatile("pushfq; andq $~0x100, (%%rsp); popfq" ::: "cc", "memory");
#endif
    *gate = 2;
    if (done == NULL) return NULL;
    pthread_barrier_wait(done);
    for (;;) pause();
}

/* Finds the gate of this process in its raw file. */
static void find_gate(void) {
    char text[4096];
    snprintf(text, sizeof text, "%s/%d-0.raw", getenv("ATRACE_DIR"), getpid());
    int file = open(text, O_RDWR);
    char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (page == MAP_FAILED) _exit(3);
    gate = (void *)(page + 132);
}

int main(int count, char **arguments) {
    int forks = count > 1 && strcmp(arguments[1], "fork") == 0;
    if (count > 1 && !forks) calls = strtoul(arguments[1], NULL, 10);
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = handle;
    if (sigaction(SIGTRAP, &action, NULL) != 0) return 2;
    handled = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (handled == MAP_FAILED) return 3;
    object = malloc(100);
    find_gate();
    pthread_barrier_t done;
    pthread_barrier_init(&done, NULL, 2);
    for (answer = 0; answer < EVERY; answer++) {
        pthread_t thread;
        int status = 0;
        *gate = 2;
        pid_t child = forks ? fork() : 0;
        if (forks && child == 0) {
            malloc_usable_size(object);
            find_gate();
            work(NULL);
            _exit(0);
        }
        if (forks && (waitpid(child, &status, 0) != child || status != 0)) return 4;
        if (forks) continue;
        if (pthread_create(&thread, NULL, work, &done) != 0) return 4;
        pthread_barrier_wait(&done);
    }
    char text[64];
    int length = snprintf(text, sizeof text, "%lu\n", *handled);
    write(1, text, length);
    _exit(0);
}
