/* Prints how many mappings of at least 2 MiB that hold objects of ours the kernel may back by huge pages ("hg"
 * among their flags), of a heap of small objects and one large object. */
#include "check.h"

enum { OBJECTS = 200000, BYTES = 100, LARGE = 16 << 20 };

static char *objects[OBJECTS];

static int holds_ours(uintptr_t start, uintptr_t end, const char *large)
{
    for (int i = 0; i < OBJECTS; i++) {
        if ((uintptr_t)objects[i] >= start && (uintptr_t)objects[i] < end) {
            return 1;
        }
    }
    return (uintptr_t)large >= start && (uintptr_t)large < end;
}

int main(void)
{
    for (int i = 0; i < OBJECTS; i++) {
        objects[i] = opaque_pointer(malloc(BYTES));
        CHECK(objects[i] != NULL);
        memset(objects[i], 1, BYTES);
    }
    char *large = opaque_pointer(malloc(LARGE));
    CHECK(large != NULL);
    memset(large, 1, LARGE);

    FILE *maps = fopen("/proc/self/smaps", "r");
    CHECK(maps != NULL);
    char line[512];
    unsigned long start = 0, end = 0;
    int asked = 0;
    while (fgets(line, sizeof line, maps) != NULL) {
        unsigned long a, b;
        if (sscanf(line, "%lx-%lx ", &a, &b) == 2 && strchr(line, '-') < strchr(line, ' ')) {
            start = a;
            end = b;
        } else if (strncmp(line, "VmFlags:", 8) == 0 && strstr(line, " hg") != NULL) {
            asked += end - start >= 2 << 20 && holds_ours(start, end, large);
        }
    }
    CHECK(fclose(maps) == 0);
    printf("%d\n", asked);
    return 0;
}
