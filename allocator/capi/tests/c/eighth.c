/* Of a burst of 64 MiB at most an eighth, and 4 MiB for what else there is, stays resident once it is freed. */
#include "check.h"

#define BURST ((size_t)64 << 20)

int main(void)
{
    static const size_t sizes[] = {64, 1000, 5000, 60000, 300000, 900000, 3000000};
    /* The pages of this list do not pass through malloc. */
    static void *objects[BURST / 64];
    memset(objects, 1, sizeof objects);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        long before = status_kib("VmRSS:") >> 10;
        size_t count = BURST / sizes[i];
        for (size_t k = 0; k < count; k++) {
            objects[k] = malloc(opaque(sizes[i]));
            CHECK(objects[k] != NULL);
            memset(objects[k], 1, sizes[i]);
        }
        for (size_t k = count; k > 0; k--) free(objects[k - 1]);
        long after = status_kib("VmRSS:") >> 10;
        if (after > before + 12) {
            dprintf(2, "of %zu bytes each: %ld MiB before, %ld MiB after the burst\n", sizes[i], before, after);
            return 1;
        }
    }
    return 0;
}
