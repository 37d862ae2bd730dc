/* CHECK(condition): ends the program, naming the condition, when it does not hold. For C and C++ alike. */
#ifndef CHECK_H
#define CHECK_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            dprintf(2, "%s:%d: not so: %s (errno %d)\n", __FILE__, __LINE__, #condition, errno);             \
            _exit(9);                                                                                        \
        }                                                                                                    \
    } while (0)

/* Keeps the compiler from knowing what a size or pointer is. */
static inline size_t opaque(size_t value)
{
    __asm__ volatile("" : "+r"(value));
    return value;
}
static inline void *opaque_pointer(void *p)
{
    __asm__ volatile("" : "+r"(p) : : "memory");
    return p;
}

/* Takes all memory there is, in objects of `size` bytes that each hold the address of the one before. */
static inline void **take_all(size_t size)
{
    void **all = NULL, **one;
    while ((one = (void **)malloc(opaque(size))) != NULL) {
        *one = all;
        all = one;
    }
    return all;
}
/* Frees what take_all gave. */
static inline void give_back(void **all)
{
    while (all != NULL) {
        void **one = (void **)*all;
        free(all);
        all = one;
    }
}

/* A field of /proc/self/status in KiB, e.g. VmRSS. Reads without allocating. */
static inline long status_kib(const char *field)
{
    static char text[8192];
    int descriptor = open("/proc/self/status", O_RDONLY);
    CHECK(descriptor >= 0);
    long length = read(descriptor, text, sizeof text - 1);
    close(descriptor);
    CHECK(length > 0);
    text[length] = 0;
    char *at = strstr(text, field);
    CHECK(at != NULL);
    return atol(at + strlen(field) + 1);
}

/* Where the program break was when the process began: field 47 of /proc/self/stat. Reads without allocating. */
static inline uintptr_t start_of_break(void)
{
    char text[2048];
    int descriptor = open("/proc/self/stat", O_RDONLY);
    CHECK(descriptor >= 0);
    long length = read(descriptor, text, sizeof text - 1);
    close(descriptor);
    CHECK(length > 0);
    text[length] = 0;
    char *at = strrchr(text, ')'); /* ends field 2, which may hold anything */
    for (int field = 2; at != NULL && field < 47; field++) {
        at = strchr(at + 1, ' ');
    }
    CHECK(at != NULL);
    uintptr_t start = strtoul(at + 1, NULL, 10);
    CHECK(start != 0 && start <= (uintptr_t)sbrk(0));
    return start;
}

/* Whether an object lies between `start`, from start_of_break, and the break as it is now. */
static inline int is_in_break(const void *p, uintptr_t start)
{
    return (uintptr_t)p >= start && (uintptr_t)p < (uintptr_t)sbrk(0);
}
#endif
