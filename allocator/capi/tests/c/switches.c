/* `switches SWITCH SIZE`: what the hardened library does while that switch is on, tried with objects of SIZE bytes. Says
 * "as ever" where nothing comes of it; else the library ends the process, or the program says what it saw. */
#include "check.h"

enum { MIB = 1 << 20, OLD = 0x5a };

static void end(const char *what)
{
    CHECK(write(1, what, strlen(what)) > 0);
    _exit(0);
}

static unsigned char *object(size_t size)
{
    unsigned char *p = opaque_pointer(malloc(opaque(size)));
    CHECK(p != NULL);
    for (size_t i = 0; i < size; i++) { /* a copy would be looked at */
        ((volatile unsigned char *)p)[i] = OLD;
    }
    return p;
}

/* One byte behind the object: a canary, for the sizes used leave room. */
static void canary(size_t size)
{
    unsigned char *p = object(size);
    p[size] = 'A';
    free(p);
}

/* What was in an object that was freed can still be read; */
static void zero_read(size_t size)
{
    volatile unsigned char *p = object(size);
    free((void *)p);
    if (p[size / 2] == 0) {
        end("zero");
    }
    CHECK(p[size / 2] == OLD);
}

/* and nobody looks whether it was written to. */
static void zero_write(size_t size)
{
    volatile unsigned char *p = object(size);
    free((void *)p);
    p[size < 1024 ? size / 2 : 512] = 'A'; /* of larger ones the ends are looked at */
    for (int i = 0; i < 200; i++) {
        free(object(size));
    }
}

/* An address comes back before 48 objects of its class were freed, or 4 of those above 952 bytes. */
static void quarantine(size_t size)
{
    unsigned char *p = object(size);
    int rounds = size <= 952 ? 40 : 3;
    free(p);
    for (int i = 0; i < rounds; i++) {
        unsigned char *next = object(size);
        if (next == p) {
            return;
        }
        free(next);
    }
    end("waits");
}

/* New objects stand side by side in the order in which they were asked for. */
static void shuffle(size_t size)
{
    enum { COUNT = 4096 };
    uintptr_t last = (uintptr_t)object(size);
    int neighbours = 0;
    for (int i = 1; i < COUNT; i++) {
        uintptr_t next = (uintptr_t)object(size);
        size_t apart = next > last ? next - last : last - next;
        neighbours += apart < 2 * size;
        last = next;
    }
    if (neighbours < COUNT / 2) {
        end("shuffled");
    }
    CHECK(neighbours > COUNT * 3 / 4); /* but where a page or a batch ends */
}

/* All that stands within a mebibyte behind an object can be read. */
static void guard(size_t size)
{
    volatile unsigned char *p = object(size);
    unsigned char sum = 0;
    for (size_t i = 0; i < MIB; i += 4096) {
        sum ^= p[i];
    }
    opaque(sum);
}

/* A copy may run over the end of an object that is not freed later. */
static void copies(size_t size)
{
    static unsigned char source[1 << 16];
    memcpy(object(size), source, size + 1);
}

int main(int count, char **arguments)
{
    static const struct {
        const char *name;
        void (*run)(size_t);
    } tries[] = {
        {"canary", canary},   {"zero-read", zero_read}, {"zero-write", zero_write}, {"quarantine", quarantine},
        {"shuffle", shuffle}, {"guard", guard},         {"copies", copies},
    };
    CHECK(count == 3);
    for (size_t i = 0; i < sizeof tries / sizeof *tries; i++) {
        if (strcmp(tries[i].name, arguments[1]) == 0) {
            tries[i].run(strtoul(arguments[2], NULL, 10));
            end("as ever");
        }
    }
    CHECK(!"a switch");
}
