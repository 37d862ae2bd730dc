/* The pages of an object with a mapping of its own go back also where the kernel refuses to take the mapping, as it does
 * where one would become two and the process has as many as it may. */
#include "check.h"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#define SIZE ((size_t)64 << 20)

static int refuse(unsigned int call)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOMEM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

int main(void)
{
    if (!refuse(SYS_munmap)) {
        dprintf(1, "skipped: no filter of system calls may be set here\n");
        return 0;
    }
    CHECK(syscall(SYS_munmap, 0L, 4096L) == -1 && errno == ENOMEM);
    long before = status_kib("VmRSS:");
    char *object = malloc(opaque(SIZE));
    CHECK(object != NULL);
    memset(object, 1, SIZE);
    CHECK(status_kib("VmRSS:") - before > 60 << 10);
    errno = 4711;
    free(object);
    CHECK(errno == 4711);
    CHECK(status_kib("VmRSS:") - before < 4 << 10);
    return 0;
}
