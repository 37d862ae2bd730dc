/* With purge=thread there is one purging thread, however often settings change, and none once purge=calls was said. */
#include "check.h"
#include <allocator.h>
#include <dirent.h>
#include <pthread.h>
#include <sys/wait.h>

static int threads(void)
{
    int count = 0;
    DIR *tasks = opendir("/proc/self/task");
    CHECK(tasks != NULL);
    for (struct dirent *task; (task = readdir(tasks)) != NULL;) {
        count += task->d_name[0] != '.';
    }
    closedir(tasks);
    return count;
}

/* Slow calls, and enough memory for a purging thread to be worth having. */
static void work(void)
{
    for (int round = 0; round < 50; round++) {
        void *p = malloc(opaque(20 << 20));
        CHECK(p != NULL);
        void *q = malloc(opaque(round * 3000 + 1));
        CHECK(q != NULL);
        free(p);
        free(q);
    }
}

static void wait_for(int wanted)
{
    for (int tries = 0; tries < 600 && threads() != wanted; tries++) {
        usleep(100000);
        work();
    }
    CHECK(threads() == wanted);
}

static void end(pid_t child)
{
    int status;
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    CHECK(status == 0);
}

static void child_has_one_too(void)
{
    free(malloc(opaque(100)));
    pid_t child = fork();
    if (child == 0) {
        work();
        wait_for(2);
        _exit(0);
    }
    end(child);
}

static void *allocate(void *unused)
{
    free(malloc(opaque(100)));
    return unused;
}

static void child_has_none(void)
{
    pid_t child = fork();
    if (child == 0) {
        pthread_t second;
        CHECK(allocator_configure("memory=balanced") == 0);
        CHECK(pthread_create(&second, NULL, allocate, NULL) == 0 && pthread_join(second, NULL) == 0);
        work();
        CHECK(threads() == 1);
        CHECK(allocator_configure("purge=thread") == 0);
        wait_for(2);
        _exit(0);
    }
    end(child);
}

int main(void)
{
    CHECK(threads() == 1);
    child_has_one_too(); /* as a daemon's, that forks before there is much memory */
    work();
    wait_for(2);
    child_has_none(); /* until it asks again */
    for (int i = 0; i < 20; i++) {
        CHECK(allocator_configure(i % 2 == 0 ? "memory=low" : "memory=balanced") == 0);
        CHECK(allocator_configure("purge=thread") == 0);
        work();
        CHECK(threads() == 2);
    }
    CHECK(allocator_configure("purge=calls") == 0);
    wait_for(1);
    CHECK(allocator_configure("purge=thread") == 0);
    wait_for(2);
    return 0;
}
