/* allocator.h: what a C or C++ program may say to this allocator in particular.
 *
 * malloc, free and all their relatives need no header of ours: <stdlib.h>, <malloc.h> and <new> declare them, and
 * liballocator serves them, preloaded (LD_PRELOAD=liballocator.so) or linked (-lallocator, or liballocator.a).
 * The functions below exist only where the library is linked or preloaded.
 *
 * A C++ program may define operators new and delete of its own; the forms that it leaves out end in them, as the standard
 * demands. All of ours stand in one object of liballocator.a, so the linker calls such a program's "multiple definition":
 * link it with the shared library, or with -Wl,-z,muldefs and its own objects before the archive.
 *
 * A shared object that has liballocator.a in it must stay mapped, since threads that used it, forks and signals run its
 * code after dlclose: link it with -Wl,-z,nodelete, and with -Wl,-Bsymbolic if its malloc is not to be the program's.
 *
 * Of glibc's functions for tuning, mallopt changes nothing here: it returns 1 for glibc's own parameters and 0 for any
 * other. malloc_trim gives back what allocator_cleanup does, whatever its argument, and returns 1 when that was any.
 * The pages of free blocks below 32 KiB that lie among live ones go back too, but are not counted, here or below.
 *
 * All of them may be called from any thread at any time, but not from a signal handler.
 */
#ifndef ALLOCATOR_H
#define ALLOCATOR_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Makes the allocator ready. Nobody needs to call it, for the first allocation does the same; a program that does
 * learns at its start, and not later, that there is no memory. Calling it again does nothing.
 * Returns 0, or -1 with errno = ENOMEM. */
int allocator_init(void);

/* Writes the counters of struct allocator_statistics, with the mode and strategies in force, to standard error. */
void allocator_stats(void);

/* Gives memory that the allocator caches back to the kernel. Objects in use stay valid, and so does the allocator:
 * a program may go on allocating afterwards. */
void allocator_cleanup(void);

/* Walks the heap, looking for traces of overflows and double frees: the records of all that is shared out, of every
 * thread; the lists that lead from there, also of threads that have ended, and of others while they are in the middle of
 * no change; and the free blocks up to 960 bytes of the calling thread and of threads that have ended. Not looked at are
 * objects above 1 MiB, what objects hold, free blocks of other running threads, and those that wait to be handed out
 * again. In classic mode it walks every block. Other threads go on, but may have to wait now and then.
 * Returns 0 when the heap is sound; else reports the first fault on standard error and returns -1. */
int allocator_check(void);

/* Bytes at one moment, unless it says otherwise. Later versions add fields at the end only. */
struct allocator_statistics {
    uint64_t live_bytes;      /* in blocks handed out, and in a few per thread that wait to be handed out again */
    uint64_t committed_bytes; /* in the pages that hold those blocks, with the free blocks among them */
    uint64_t mapped_bytes;    /* address space taken from the kernel */
    uint64_t cached_bytes;    /* free and still resident: what allocator_cleanup gives back; 0 in classic mode */
    uint64_t purged_bytes;    /* given back to the kernel so far, in all; 0 in classic mode, which does not count it */
    uint64_t lock_acquisitions; /* times that a lock which threads share was taken (a number) */
    uint64_t lock_waits;      /* times that it was not free (a number) */
    uint64_t lock_wait_ns;    /* nanoseconds that threads waited for it; counted in classic mode only */
};

/* Fills *out. `size` is sizeof(struct allocator_statistics), so that a program compiled against an older or newer
 * header gets the fields that both sides know and zeros in the others.
 * Returns 0, or -1 with errno = EINVAL when out is null or size holds no field. */
int allocator_get_stats(struct allocator_statistics *out, size_t size);

/* Applies one setting, "name=value" as in the environment variable ALLOCATOR_OPTIONS (docs/options.md lists them), to
 * the running process. Settings of which the list says so count only before the first allocation; those of
 * mode=classic come from the environment only.
 * Returns 0, or -1 with errno = EINVAL when the setting is not understood, or comes too late and is not what holds
 * anyhow; then nothing changes. */
int allocator_configure(const char *setting);

/* Writes a report for people to a file descriptor: the counters of struct allocator_statistics, then a row per size
 * class and one per thread, of which classic mode has none. Allocates nothing. Returns 0, or -1 when not all of it could
 * be written. */
int allocator_report(int descriptor);

/* Writes a map of the heap to a file descriptor: one JSON object a line, one line a segment (docs/heap-map.md says
 * what is in it). Allocates nothing; other threads may go on meanwhile, so the map is of many moments.
 * Returns 0, or -1 when not all of it could be written. */
int allocator_heap_map(int descriptor);

/* Writes a profile of the samples that the setting sample=BYTES takes (docs/sampling.md) to a file: who allocated what
 * is live, and who allocates most, as text that pprof and jeprof read. A file of that name is overwritten. Allocates
 * nothing. Returns 0, or -1 with errno: ENODATA when sampling was never on, else why the file cannot be written. */
int allocator_sample_dump(const char *path);

/* What a program does about a fault (a double free, an overflow, ...) instead of ending: gets what a report would say,
 * such as "double free (check double-free)", in a string that lasts for the call; the object's address; and its size
 * in bytes, or 0. It may not allocate, release or call allocator_check: a lock may be held. */
typedef void (*allocator_fault_callback)(const char *what, void *object, size_t size);

/* Hands every fault to `callback` from now on, in any mode and from any thread; NULL undoes it. A fault that was found
 * before anything changed is passed over once the callback returns, as if the wrong call had not been made; after any
 * other (a write into a freed object, and in classic mode other damage that an allocation comes upon) the process ends
 * all the same. */
void allocator_on_fault(allocator_fault_callback callback);

/* The version of the library at hand, "major.minor.patch". Static storage. */
const char *allocator_version(void);

/* C23. C libraries that have them declare them alike. */
#if defined(__cplusplus) && __cplusplus >= 201103L
void free_sized(void *ptr, size_t size) noexcept;
void free_aligned_sized(void *ptr, size_t alignment, size_t size) noexcept;
#else
void free_sized(void *ptr, size_t size);
void free_aligned_sized(void *ptr, size_t alignment, size_t size);
#endif

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* ALLOCATOR_H */
