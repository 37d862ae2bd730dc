/* One misuse per process: `misuse SHAPE SIZE`; `misuse` alone lists the shapes. A process that reaches
 * the end of its misuse says "not caught". Ending before that, by whatever means, is what is asked of
 * a library; ending by SIGALRM is a hang. */
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <malloc.h>
#include <new>
#include <pthread.h>
#include <unistd.h>

extern "C" void free_sized(void *, size_t);
extern "C" void free_aligned_sized(void *, size_t, size_t);

typedef volatile unsigned char byte;
enum { MIB = 1 << 20, SECRET = 0x5a };

static unsigned char source[8 * MIB];
alignas(64) static unsigned char fixed[4096];
/* What the compiler must not know. */
static void *volatile hidden;

static byte *object(size_t size) {
    hidden = malloc(size);
    memset(hidden, SECRET, size);
    return (byte *)hidden;
}

static void release(byte *p) { free((void *)p); }

/* Objects of the same size come and go, as they would in a program that runs on. */
static void go_on(size_t size) {
    int rounds = size <= 1024 ? 500 : size <= 65536 ? 100 : 12;
    for (int i = 0; i < rounds; i++) {
        hidden = malloc(size);
        memset(hidden, 0, size < 64 ? size : 64);
        free(hidden);
    }
}

static void copy(byte *to, const void *from, size_t size) { memcpy((void *)to, from, size); }

/* The same object given back twice. */
static void double_free(size_t n) { byte *p = object(n); release(p); release(p); }
static void double_free_delayed(size_t n) {
    byte *p = object(n), *q = object(n);
    release(p); release(q); release(p);
}
static void double_free_of_many(size_t n) {
    byte *p[8];
    for (auto &each : p) each = object(n);
    for (auto each : p) release(each);
    release(p[3]);
}
static void double_free_between_other_calls(size_t n) {
    byte *p = object(n), *keep = object(n);
    release(p);
    hidden = malloc(n + 64);
    hidden = malloc(2 * n);
    release(p);
    release(keep);
}
static void *second_free(void *p) { free(p); return nullptr; }
static void double_free_by_another_thread(size_t n) {
    byte *p = object(n), *keep = object(n);
    pthread_t thread;
    release(p);
    pthread_create(&thread, nullptr, second_free, (void *)p);
    pthread_join(thread, nullptr);
    release(keep);
}
static void double_free_after_realloc(size_t n) {
    byte *p = object(n);
    hidden = realloc((void *)p, 5 * n);
    if (hidden == (void *)p) release(p); /* It grew where it was. */
    release(p);
}
static void double_delete(size_t n) {
    hidden = ::operator new(n);
    void *p = hidden;
    ::operator delete(p);
    ::operator delete(p);
}

/* Addresses that no allocation returned. */
static void free_far(size_t n) { release((byte *)((uintptr_t)object(n) ^ (uintptr_t)1 << 44)); }
static void free_close(size_t n) { release(object(n) + 64 * MIB); }
static void free_behind(size_t n) { release(object(n) + ((n + 15) & ~(size_t)15) + 32); }
static void free_in_front(size_t n) { release(object(n) - 16); }
static void free_stack(size_t n) {
    alignas(64) byte local[256];
    object(n);
    local[0] = 1;
    release(local);
}
static void free_static(size_t n) { object(n); release(fixed + 64); }
static void free_misaligned(size_t n) { release(object(n) + 1); }
static void free_interior(size_t n) { release(object(n) + 16); }
static void free_middle(size_t n) { release(object(n) + (n / 2 & ~(size_t)15)); }
static void realloc_interior(size_t n) { hidden = realloc((void *)(object(n) + 16), 2 * n); }
static void realloc_freed(size_t n) { byte *p = object(n); release(p); hidden = realloc((void *)p, 2 * n); }
static void realloc_stack(size_t n) {
    alignas(64) byte local[256];
    object(n);
    hidden = realloc((void *)local, n);
}
static void usable_size_of_freed(size_t n) {
    byte *p = object(n);
    release(p);
    /* Saying that nothing may be used is a catch, too. */
    if (malloc_usable_size((void *)p) == 0) _exit(0);
}

/* Writes past either end, and back to the allocator. */
static void overflow(size_t n, size_t by) {
    byte *p = object(n);
    for (size_t i = 0; i < by; i++) p[n + i] = 0x41;
    release(p);
}
static void overflow_write_1(size_t n) { overflow(n, 1); }
static void overflow_write_32(size_t n) { overflow(n, 32); }
static void overflow_write_1_mib(size_t n) { overflow(n, MIB); }
static void overflow_memcpy_1(size_t n) { byte *p = object(n); copy(p, source, n + 1); release(p); }
static void overflow_memcpy_32(size_t n) { byte *p = object(n); copy(p, source, n + 32); release(p); }
static void overflow_memcpy_1_mib(size_t n) { byte *p = object(n); copy(p, source, n + MIB); release(p); }
static void overflow_end_of_string(size_t n) {
    byte *p = object(n);
    p[n] = 0;
    release(p);
}
static void overflow_then_realloc(size_t n) {
    byte *p = object(n);
    p[n] = 0x41;
    hidden = realloc((void *)p, 3 * n);
}
static void underflow(size_t n, size_t by) {
    byte *p = object(n);
    for (size_t i = 1; i <= by; i++) p[-(ptrdiff_t)i] = 0x41;
    release(p);
}
static void underflow_write_1(size_t n) { underflow(n, 1); }
static void underflow_write_32(size_t n) { underflow(n, 32); }
static void underflow_write_1_mib(size_t n) { underflow(n, MIB); }
static void underflow_memcpy_32(size_t n) { byte *p = object(n); copy(p - 32, source, 64); release(p); }
static void overflow_read_1_mib(size_t n) {
    byte *p = object(n);
    for (size_t i = 0; i < MIB; i++) source[0] ^= p[n + i];
}

/* Copies and fills that are not followed by a free. */
static void overflow_memcpy_and_keep(size_t n) { byte *p = object(n); copy(p, source, n + 1); }
static void overflow_memmove_and_keep(size_t n) { byte *p = object(n); memmove((void *)p, source, n + 40); }
static void overflow_memset_and_keep(size_t n) { byte *p = object(n); memset((void *)(p + n / 2), 0, n); }
static void underflow_memcpy_and_keep(size_t n) { byte *p = object(n); copy(p - 1, source, n); }
static void fill_after_free(size_t n) { byte *p = object(n); release(p); memset((void *)p, 0x41, n); }

/* Objects of no bytes have none to be touched. */
static byte *nothing() { hidden = malloc(0); return (byte *)hidden; }
static void read_of_nothing(size_t) { source[0] = *nothing(); }
static void write_to_nothing(size_t) { *nothing() = 0x41; }
static void double_free_of_nothing(size_t) { byte *p = nothing(); release(p); release(p); }
static void realloc_of_freed_nothing(size_t n) { byte *p = nothing(); release(p); hidden = realloc((void *)p, n); }

/* Use after free. */
static void write_after_free(size_t n) { byte *p = object(n); release(p); p[0] = 0x41; go_on(n); }
static void write_after_free_in_the_middle(size_t n) {
    byte *p = object(n);
    release(p);
    p[n < 1024 ? n / 2 : 512] = 0x41;
    go_on(n);
}
static void write_after_free_at_the_end(size_t n) { byte *p = object(n); release(p); p[n - 1] = 0x41; go_on(n); }
static void read_after_free(size_t n) {
    byte *p = object(n);
    release(p);
    if (p[n - 1] != SECRET && p[n / 2] != SECRET) _exit(0);
}
static void reuse_at_once(size_t n) {
    byte *p = object(n);
    release(p);
    hidden = malloc(n);
    if (hidden != (void *)p) _exit(0);
}
static void leftovers_in_a_new_object(size_t n) {
    for (int round = 0; round < (n <= 1024 ? 300 : 12); round++) {
        hidden = malloc(n);
        byte *p = (byte *)hidden;
        if (p[n - 1] == SECRET || p[n / 2] == SECRET) return;
        memset(hidden, SECRET, n);
        free(hidden);
    }
    _exit(0);
}

/* Sizes that are not the object's. */
static void free_sized_too_small(size_t n) { free_sized((void *)object(n), n / 4); }
static void free_sized_too_large(size_t n) { free_sized((void *)object(n), 4 * n); }
static void free_aligned_sized_wrong_size(size_t n) {
    hidden = aligned_alloc(64, n);
    free_aligned_sized(hidden, 64, 16 * n);
}
static void delete_sized_wrong_size(size_t n) {
    hidden = ::operator new(n);
    ::operator delete(hidden, 2 * n);
}
static void delete_array_sized_wrong_size(size_t n) {
    hidden = ::operator new[](n);
    ::operator delete[](hidden, n - 8);
}

/* Sizes that cannot be: an object must not come of them. */
static void nothing_came() { if (hidden == nullptr) _exit(0); }
static void impossible_malloc(size_t n) { hidden = malloc(SIZE_MAX - n); nothing_came(); }
static void impossible_calloc(size_t n) { hidden = calloc(SIZE_MAX / 2, n); nothing_came(); }
static void impossible_realloc(size_t n) { hidden = realloc((void *)object(n), SIZE_MAX - n); nothing_came(); }
static void impossible_alignment(size_t n) { hidden = aligned_alloc(64, SIZE_MAX - 63 - n); nothing_came(); }

static void run_code_in_the_heap(size_t n) {
    byte *p = object(n);
#if defined(__x86_64__)
    p[0] = 0xc3; /* ret */
#else
    const uint32_t ret = 0xd65f03c0;
    copy(p, &ret, sizeof ret);
#endif
    ((void (*)(void))(uintptr_t)p)();
}

#define SHAPE(name) {#name, name}
static const struct { const char *name; void (*misuse)(size_t); } shapes[] = {
    SHAPE(double_free), SHAPE(double_free_delayed), SHAPE(double_free_of_many),
    SHAPE(double_free_between_other_calls), SHAPE(double_free_by_another_thread),
    SHAPE(double_free_after_realloc), SHAPE(double_delete),
    SHAPE(free_far), SHAPE(free_close), SHAPE(free_behind), SHAPE(free_in_front), SHAPE(free_stack),
    SHAPE(free_static), SHAPE(free_misaligned), SHAPE(free_interior), SHAPE(free_middle),
    SHAPE(realloc_interior), SHAPE(realloc_freed), SHAPE(realloc_stack), SHAPE(usable_size_of_freed),
    SHAPE(overflow_write_1), SHAPE(overflow_write_32), SHAPE(overflow_write_1_mib),
    SHAPE(overflow_memcpy_1), SHAPE(overflow_memcpy_32), SHAPE(overflow_memcpy_1_mib),
    SHAPE(overflow_end_of_string), SHAPE(overflow_then_realloc),
    SHAPE(underflow_write_1), SHAPE(underflow_write_32), SHAPE(underflow_write_1_mib),
    SHAPE(underflow_memcpy_32), SHAPE(overflow_read_1_mib),
    SHAPE(overflow_memcpy_and_keep), SHAPE(overflow_memmove_and_keep), SHAPE(overflow_memset_and_keep),
    SHAPE(underflow_memcpy_and_keep), SHAPE(fill_after_free), SHAPE(read_of_nothing),
    SHAPE(write_to_nothing), SHAPE(double_free_of_nothing), SHAPE(realloc_of_freed_nothing),
    SHAPE(write_after_free), SHAPE(write_after_free_in_the_middle), SHAPE(write_after_free_at_the_end),
    SHAPE(read_after_free), SHAPE(reuse_at_once), SHAPE(leftovers_in_a_new_object),
    SHAPE(free_sized_too_small), SHAPE(free_sized_too_large), SHAPE(free_aligned_sized_wrong_size),
    SHAPE(delete_sized_wrong_size), SHAPE(delete_array_sized_wrong_size),
    SHAPE(impossible_malloc), SHAPE(impossible_calloc), SHAPE(impossible_realloc),
    SHAPE(impossible_alignment), SHAPE(run_code_in_the_heap),
};

int main(int count, char **arguments) {
    if (count < 3) {
        for (auto &shape : shapes) puts(shape.name);
        return 0;
    }
    alarm(20);
    memset(source, 0x42, sizeof source);
    for (auto &shape : shapes) {
        if (strcmp(shape.name, arguments[1]) != 0) continue;
        shape.misuse(strtoul(arguments[2], nullptr, 10));
        const char line[] = "not caught\n";
        return write(1, line, sizeof line - 1) < 0;
    }
    return 2;
}
