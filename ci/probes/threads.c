/* Four threads allocate, write, hand objects to each other under a mutex, and free what they were
   handed: the calls that `cargo ci valgrind` and `cargo ci helgrind` watch. Correct by itself: any
   race or bad access that is reported lies in the allocator. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS = 4, ROUNDS = 400, SHELVES = 64 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned char *shelf[SHELVES];
static size_t sizes[SHELVES];

static void check_and_free(unsigned char *object, size_t size) {
  if (object == NULL) return;
  if (object[0] != (unsigned char)size || object[size - 1] != (unsigned char)size) {
    fprintf(stderr, "an object of %zu bytes was overwritten\n", size);
    abort();
  }
  free(object);
}

static void *work(void *argument) {
  unsigned state = (unsigned)(size_t)argument * 2654435761u + 1;
  for (int round = 0; round < ROUNDS; round++) {
    state = state * 1664525u + 1013904223u;
    size_t size = 1 + (state >> 8) % (round % 50 == 0 ? 2000000 : round % 7 == 0 ? 40000 : 600);
    unsigned char *object = round % 3 == 0 ? calloc(1, size) : malloc(size);
    if (object == NULL) abort();
    if (round % 5 == 0) {
      unsigned char *moved = realloc(object, size + 100);
      if (moved == NULL) abort();
      object = moved;
    }
    object[0] = object[size - 1] = (unsigned char)size;
    unsigned place = (state >> 4) % SHELVES;
    pthread_mutex_lock(&lock);
    unsigned char *other = shelf[place];
    size_t other_size = sizes[place];
    shelf[place] = object;
    sizes[place] = size;
    pthread_mutex_unlock(&lock);
    check_and_free(other, other_size);
  }
  return NULL;
}

int main(void) {
  for (int generation = 0; generation < 3; generation++) {
    pthread_t threads[THREADS];
    for (size_t i = 0; i < THREADS; i++) {
      if (pthread_create(&threads[i], NULL, work, (void *)(i + 10 * generation)) != 0) abort();
    }
    for (size_t i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
  }
  for (int i = 0; i < SHELVES; i++) check_and_free(shelf[i], sizes[i]);
  puts("done");
  return 0;
}
