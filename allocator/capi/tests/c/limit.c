/* RLIMIT_AS of 256 MiB above what the program has before its first allocation: at least 95 % of that is usable,
 * whatever the size of the objects, for one thread and for four; then NULL with ENOMEM from every function, contents
 * intact; after free the service resumes. */
#include "check.h"
#include <malloc.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>

#define LIMIT ((size_t)256 << 20)
#define USABLE 95
#define THREADS 4
/* The sizes of a row: drawn from 16 B to 1 MiB, each power of two as often as the next. */
#define MIXED 0

struct link {
    struct link *next;
    size_t size;
};

/* Objects of one size that somebody allocated, and how many bytes they asked for and got. */
struct heap {
    struct link *all;
    size_t size, asked, usable;
    uint64_t random;
};

static size_t next_size(struct heap *heap)
{
    if (heap->size != MIXED) {
        return heap->size;
    }
    heap->random ^= heap->random << 13;
    heap->random ^= heap->random >> 7;
    heap->random ^= heap->random << 17;
    size_t least = (size_t)16 << heap->random % 16;
    return least + (heap->random >> 8) % least;
}

static void push(struct heap *heap, size_t size, struct link *one)
{
    size_t usable = malloc_usable_size(one);
    CHECK(usable >= size);
    memset(one + 1, 0x77, usable - sizeof *one);
    one->size = usable;
    one->next = heap->all;
    heap->all = one;
    heap->asked += size;
    heap->usable += usable;
}

/* Allocates until it is refused; mixed sizes until a hundred in a row are refused, so small ones too. */
static void *fill(void *argument)
{
    struct heap *heap = argument;
    int refused = 0;
    while (refused < (heap->size == MIXED ? 100 : 1)) {
        errno = 0;
        size_t size = next_size(heap);
        struct link *one = malloc(opaque(size));
        if (one == NULL) {
            CHECK(errno == ENOMEM);
            refused++;
        } else {
            push(heap, size, one);
            refused = 0;
        }
    }
    return NULL;
}

/* As fill, by four threads at once; their stacks are the program's own. */
static void fill_by_threads(struct heap *heap)
{
    static char stacks[THREADS][1 << 16] __attribute__((aligned(4096)));
    pthread_t threads[THREADS];
    struct heap parts[THREADS];
    for (int i = 0; i < THREADS; i++) {
        parts[i] = (struct heap){.size = heap->size, .random = i + 1};
        pthread_attr_t attributes;
        CHECK(pthread_attr_init(&attributes) == 0);
        CHECK(pthread_attr_setstack(&attributes, stacks[i], sizeof stacks[i]) == 0);
        CHECK(pthread_create(&threads[i], &attributes, fill, &parts[i]) == 0);
    }
    for (int i = 0; i < THREADS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
        while (parts[i].all != NULL) {
            struct link *one = parts[i].all;
            parts[i].all = one->next;
            one->next = heap->all;
            heap->all = one;
        }
        heap->asked += parts[i].asked;
        heap->usable += parts[i].usable;
    }
}

static void limit_address_space(void)
{
    size_t before = (size_t)status_kib("VmSize:") << 10;
    struct rlimit limit = {before + LIMIT, before + LIMIT};
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
}

/* `asked` percent of the limit go to what was asked for, so without what rounding up to a size class adds. */
static void hold(size_t size, size_t asked, int threads)
{
    /* What was mapped before this line is not within the limit; the heap had no reason to map anything. */
    CHECK(mallinfo2().arena == 0 && mallinfo2().hblkhd == 0);
    limit_address_space();
    struct heap heap = {.size = size, .random = 1};
    if (threads > 1) {
        fill_by_threads(&heap);
    } else {
        fill(&heap);
    }
    dprintf(1, "objects of %zu bytes, %d threads: %.1f of 256 MiB usable, %.1f asked for\n", size, threads,
            (double)heap.usable / (1 << 20), (double)heap.asked / (1 << 20));
    CHECK(heap.usable >= LIMIT / 100 * USABLE);
    CHECK(heap.asked >= LIMIT / 100 * asked);

    errno = 0;
    CHECK(calloc(opaque(LIMIT), 1) == NULL && errno == ENOMEM);
    errno = 0;
    CHECK(realloc(heap.all, opaque(LIMIT)) == NULL && errno == ENOMEM);
    errno = 0;
    CHECK(aligned_alloc(4096, opaque(LIMIT)) == NULL && errno == ENOMEM);
    void *out = &out;
    CHECK(posix_memalign(&out, 4096, opaque(LIMIT)) == ENOMEM && out == &out);

    size_t sum = 0;
    for (struct link *one = heap.all; one != NULL; one = one->next) {
        CHECK(one->size == malloc_usable_size(one));
        unsigned char *bytes = (unsigned char *)(one + 1);
        CHECK(one->size == sizeof *one || (bytes[0] == 0x77 && bytes[one->size - sizeof *one - 1] == 0x77));
        sum += one->size;
    }
    CHECK(sum == heap.usable);
    for (int round = 0; round < 3; round++) { /* serve, fail, serve again */
        size_t freed = 0;
        while (heap.all != NULL && freed < sum / 2) {
            struct link *next = heap.all->next;
            freed += heap.all->size;
            free(heap.all);
            heap.all = next;
        }
        heap.usable = 0;
        fill(&heap);
        CHECK(heap.usable >= freed / 100 * USABLE);
    }
    while (heap.all != NULL) {
        struct link *next = heap.all->next;
        free(heap.all);
        heap.all = next;
    }
}

/* Leaves `bytes` of freed 64-byte objects. */
static void free_small(size_t bytes)
{
    struct heap heap = {.size = 64, .random = 1};
    while (heap.usable < bytes) {
        struct link *one = malloc(opaque(64));
        CHECK(one != NULL);
        push(&heap, 64, one);
    }
    while (heap.all != NULL) {
        struct link *next = heap.all->next;
        free(heap.all);
        heap.all = next;
    }
}

static void what_small_objects_left_serves_a_large_one(void)
{
    limit_address_space();
    free_small((size_t)100 << 20);
    char *large = malloc(opaque((size_t)180 << 20));
    CHECK(large != NULL);
    large[(180 << 20) - 1] = 1;
    free(large);
}

static void what_small_objects_left_lets_a_large_one_grow(void)
{
    limit_address_space();
    free_small((size_t)130 << 20);
    char *large = malloc(opaque((size_t)100 << 20));
    CHECK(large != NULL);
    large[(100 << 20) - 1] = 7;
    large = realloc(large, opaque((size_t)160 << 20)); /* both do not fit */
    CHECK(large != NULL && large[(100 << 20) - 1] == 7);
    free(large);
}

static void a_trim_leaves_address_space_to_the_program(void)
{
    limit_address_space();
    free_small((size_t)200 << 20);
    malloc_trim(0);
    CHECK(mmap(NULL, (size_t)200 << 20, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED);
}

static void in_a_child(void (*what)(void))
{
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        what();
        _exit(0);
    }
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

int main(void)
{
    in_a_child(what_small_objects_left_serves_a_large_one);
    in_a_child(what_small_objects_left_lets_a_large_one_grow);
    in_a_child(a_trim_leaves_address_space_to_the_program);
    /* The list node costs nothing: it lies inside the object. Less is asked for than is usable where the size class is
     * much larger than the object: of 520 B (576) and 200000 B (212992), and of mixed sizes. */
    static const struct {
        size_t size, asked;
        int threads;
    } rows[] = {{32, 95, 1},       {64, 95, 1},     {96, 95, 1},          {520, 87, 1},     {1008, 95, 1},
                {1024, 95, 1},     {4096, 95, 1},   {5000, 95, 1},        {10240, 95, 1},   {65536, 95, 1},
                {114688, 95, 1},   {131072, 95, 1}, {200000, 90, 1},      {212992, 95, 1},  {1 << 20, 95, 1},
                {3 << 20, 95, 1},  {8 << 20, 95, 1}, {MIXED, 92, 1},      {64, 95, THREADS}, {10240, 95, THREADS},
                {MIXED, 92, THREADS}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            hold(rows[i].size, rows[i].asked, rows[i].threads);
            _exit(0);
        }
        int status = 0;
        CHECK(waitpid(child, &status, 0) == child);
        if (status != 0) {
            dprintf(2, "objects of %zu bytes, %d threads: status %#x\n", rows[i].size, rows[i].threads, status);
            return 1;
        }
    }
    return 0;
}
