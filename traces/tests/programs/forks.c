/* A worker of the main thread forks. The child allocates 111 bytes and makes a thread that allocates
 * 222. With an argument the worker begins and forks while recording is off, and the child turns it
 * on. */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static int paused;

/* Sets the gate in the raw file of this process. */
static void set(int gate) {
    char name[4096];
    snprintf(name, sizeof name, "%s/%d-0.raw", getenv("ATRACE_DIR"), getpid());
    int file = open(name, O_RDWR);
    if (pwrite(file, &gate, sizeof gate, 132) != sizeof gate) _exit(3);
    close(file);
}

static void *allocate(void *argument) {
    free(malloc(222));
    return NULL;
}

static void *work(void *argument) {
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        pthread_t thread;
        free(malloc(1));
        if (paused) set(1);
        free(malloc(111));
        if (pthread_create(&thread, NULL, allocate, NULL) != 0) _exit(4);
        pthread_join(thread, NULL);
        _exit(0);
    }
    if (waitpid(child, &status, 0) != child || status != 0) _exit(5);
    return NULL;
}

int main(int count, char **arguments) {
    pthread_t thread;
    free(malloc(100));
    paused = count > 1;
    if (paused) set(2);
    if (pthread_create(&thread, NULL, work, NULL) != 0) return 2;
    pthread_join(thread, NULL);
    return 0;
}
