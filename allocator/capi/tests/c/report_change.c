/* report_change FIRST LAST: the environment chose the first report, the program the last one before its first allocation:
 * signals and descriptors that the first would have taken are the program's again. */
#include "check.h"
#include <allocator.h>
#include <signal.h>

static void mine(int signal) { (void)signal; }

static int is_mine(int signal)
{
    struct sigaction now;
    CHECK(sigaction(signal, NULL, &now) == 0);
    return now.sa_handler == mine;
}

int main(int count, char **arguments)
{
    CHECK(count == 3);
    const char *last = arguments[2];
    struct sigaction action = {.sa_handler = mine};
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0 && sigaction(SIGUSR2, &action, NULL) == 0);
    char setting[32] = "report=";
    for (int i = 0; i < 2; i++) {
        CHECK(allocator_configure(strcat(strcpy(setting, "report="), last)) == 0);
        CHECK(allocator_configure(i == 0 ? "sbrk=off" : "sbrk=on") == 0); /* has everything set up anew */
    }
    CHECK(is_mine(SIGUSR1) == (strcmp(last, "usr1") != 0));
    CHECK(is_mine(SIGUSR2) == (strcmp(last, "usr2") != 0));
    CHECK((fcntl(100, F_GETFD) >= 0) == (strcmp(last, "exit") == 0)); /* where standard error is kept */
    CHECK(fcntl(101, F_GETFD) < 0);
    free(malloc(opaque(10)));
    return 0;
}
