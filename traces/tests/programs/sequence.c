/* Two threads allocate and free in a sequence that a reader can check, and note in a shared file
 * how far they are: `sequence PROGRESS ROUNDS`. The size of the i-th object of a thread is
 * 32 + i % 1000 (the second thread: 2000 more). ROUNDS 0 goes on until killed. */
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static volatile unsigned long *progress;
static unsigned long rounds;

static void *work(void *argument) {
    unsigned long number = (unsigned long)argument;
    for (unsigned long i = 0; rounds == 0 || i < rounds; i++) {
        char *object = malloc(32 + i % 1000 + 2000 * number);
        *(volatile char *)object = 1;
        free(object);
        progress[8 * number] = i + 1;
    }
    return NULL;
}

int main(int count, char **arguments) {
    if (count != 3) return 2;
    int fd = open(arguments[1], O_RDWR | O_CREAT, 0600);
    if (fd < 0 || ftruncate(fd, 4096) != 0) return 3;
    progress = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (progress == MAP_FAILED) return 4;
    rounds = strtoul(arguments[2], NULL, 10);
    pthread_t thread;
    if (pthread_create(&thread, NULL, work, (void *)1) != 0) return 5;
    work((void *)0);
    pthread_join(thread, NULL);
    return 0;
}
