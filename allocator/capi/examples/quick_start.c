/* The quick start: every call a first program makes.
 *
 *     cc quick_start.c -I ../include -L DIR -lallocator -Wl,-rpath,DIR -o quick_start     (shared)
 *     cc quick_start.c -I ../include DIR/liballocator.a -o quick_start                    (static)
 *
 * DIR is the folder of liballocator.so and liballocator.a.
 */
#include <allocator.h>

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *checked(void *p, const char *what)
{
    if (p == NULL) {
        perror(what);
        exit(EXIT_FAILURE);
    }
    return p;
}

int main(void)
{
    if (allocator_init() != 0) {
        perror("allocator_init");
        return EXIT_FAILURE;
    }

    char *text = checked(malloc(1024), "malloc");
    strcpy(text, "malloc gives memory");

    double *vector = checked(aligned_alloc(64, 256 * sizeof(double)), "aligned_alloc");
    printf("aligned_alloc(64, ...) is %s\n", (uintptr_t)vector % 64 == 0 ? "aligned" : "NOT ALIGNED");

    int *numbers = checked(calloc(100, sizeof(int)), "calloc");
    int sum = 0;
    for (int i = 0; i < 100; i++) {
        sum += numbers[i];
    }
    printf("the sum of 100 integers from calloc is %d\n", sum);

    text = checked(realloc(text, 100000), "realloc");
    printf("after realloc: %s\n", text);

    allocator_stats();
    free(text);
    free(vector);
    free(numbers);

    printf("the heap is %s\n", allocator_check() == 0 ? "sound" : "DAMAGED");
    allocator_cleanup();
    return EXIT_SUCCESS;
}
