/* Twenty threads, one after another, begin while recording is on and end while it is off: the program
 * moves the gate in its own raw file. */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static int file;

static void set(int gate) {
    if (pwrite(file, &gate, sizeof gate, 132) != sizeof gate) _exit(4);
}

static void *work(void *argument) {
    free(malloc(100));
    set(2);
    return NULL;
}

int main(void) {
    char name[4096];
    snprintf(name, sizeof name, "%s/%d-0.raw", getenv("ATRACE_DIR"), getpid());
    free(malloc(100));
    file = open(name, O_RDWR);
    if (file < 0) return 2;
    for (int i = 0; i < 20; i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, work, NULL) != 0) return 3;
        pthread_join(thread, NULL);
        set(1);
    }
    return 0;
}
