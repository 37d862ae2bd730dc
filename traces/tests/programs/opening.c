/* Children each have a signal at every instruction of their first call, for which the recorder begins a file. The handler
 * answers one of EVERY with free(NULL), in each child another one. x86_64 only. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <malloc.h>
#include <sys/wait.h>
#include <unistd.h>

enum { EVERY = 16, HANG_SECONDS = 30 };
static volatile unsigned long steps, answer;

static void handle(int number) {
    (void)number;
    if ((steps++ + answer) % EVERY == 0) free(NULL);
}

int main(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = handle;
    if (sigaction(SIGTRAP, &action, NULL) != 0) return 2;
    void *object = malloc(100);
    for (answer = 0; answer < EVERY; answer++) {
        int status;
        pid_t child = fork();
        if (child == 0) {
            alarm(HANG_SECONDS);
#ifdef __x86_64__
            __asm__ volatile("pushfq; orq $0x100, (%%rsp); popfq" ::: "cc", "memory");
            malloc_usable_size(object);
            __asm__ volatile("pushfq; andq $~0x100, (%%rsp); popfq" ::: "cc", "memory");
#endif
            free(malloc(333));
            _exit(0);
        }
        if (waitpid(child, &status, 0) != child || status != 0) return 4;
    }
    return 0;
}
