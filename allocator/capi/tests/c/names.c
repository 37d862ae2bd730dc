/* Addresses of objects, each with the line of /proc/self/maps that holds it, on standard output; "no names" where the
 * kernel cannot name memory. The last two are the ends of an object that grew, which may have moved with its pages. */
#include "check.h"
#include <sys/mman.h>
#include <sys/prctl.h>

#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#define PR_SET_VMA_ANON_NAME 0
#endif

static void print_line_of(const void *p)
{
    static char text[1 << 20];
    size_t length = 0;
    long got;
    int descriptor = open("/proc/self/maps", O_RDONLY);
    CHECK(descriptor >= 0);
    while ((got = read(descriptor, text + length, sizeof text - 1 - length)) > 0) {
        length += (size_t)got;
    }
    close(descriptor);
    text[length] = 0;
    for (char *line = text; *line != 0;) {
        char *next = strchr(line, '\n'), *end;
        CHECK(next != NULL);
        uintptr_t first = strtoul(line, &end, 16), last = strtoul(end + 1, NULL, 16);
        if ((uintptr_t)p >= first && (uintptr_t)p < last) {
            dprintf(1, "%#lx %.*s\n", (unsigned long)p, (int)(next - line), line);
            return;
        }
        line = next + 1;
    }
    CHECK(!"the object is mapped");
}

int main(void)
{
    void *page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(page != MAP_FAILED);
    if (prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, page, 4096, "own") != 0) {
        CHECK(errno == EINVAL);
        dprintf(1, "no names\n");
        return 0;
    }
    static const size_t sizes[] = {100, 5000, 100000, 300000, 5 << 20};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        void *p = malloc(opaque(sizes[i]));
        CHECK(p != NULL);
        memset(p, 1, sizes[i]);
        print_line_of(p);
    }
    char *grown = realloc(malloc(opaque(5 << 20)), opaque(50 << 20));
    CHECK(grown != NULL);
    print_line_of(grown);
    print_line_of(grown + (50 << 20) - 1);
    return 0;
}
