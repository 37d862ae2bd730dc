/* Threads hand objects to each other under a mutex, and whoever gets one frees it: what `cargo ci
   valgrind` watches with helgrind on the ordinary library. That library does not tell when an object
   begins anew, so the program does; any race that is reported in this file is of two users of one
   object. */
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <valgrind/helgrind.h>

enum { THREADS = 3, ROUNDS = 600, SHELVES = 32 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned char *shelf[SHELVES];
/* All threads begin before one ends, so that no heap passes from thread to thread. */
static pthread_barrier_t together;

/* An object with its size in its first bytes, written from the first byte to the last. */
static unsigned char *make(size_t size) {
  unsigned char *object = malloc(size);
  if (object == NULL) abort();
  size_t usable = malloc_usable_size(object);
  VALGRIND_HG_CLEAN_MEMORY(object, usable);
  memset(object, (int)(usable & 255), usable);
  memcpy(object, &usable, sizeof usable);
  return object;
}

static void check_and_free(unsigned char *object) {
  if (object == NULL) return;
  size_t usable;
  memcpy(&usable, object, sizeof usable);
  for (size_t at = sizeof usable; at < usable; at += usable / 8 + 1) {
    if (object[at] != (usable & 255)) {
      fprintf(stderr, "an object of %zu bytes was overwritten\n", usable);
      abort();
    }
  }
  free(object);
}

static void *work(void *argument) {
  unsigned state = (unsigned)(size_t)argument * 2654435761u + 1;
  check_and_free(make(100));
  pthread_barrier_wait(&together);
  for (int round = 0; round < ROUNDS; round++) {
    state = state * 1664525u + 1013904223u;
    unsigned most = round % 100 == 99 ? 3000000 : round % 25 == 0 ? 200000 : round % 5 == 0 ? 20000 : 600;
    unsigned char *object = make(sizeof(size_t) + (state >> 8) % most);
    unsigned place = (state >> 4) % SHELVES;
    pthread_mutex_lock(&lock);
    unsigned char *other = shelf[place];
    shelf[place] = object;
    pthread_mutex_unlock(&lock);
    check_and_free(other);
  }
  pthread_barrier_wait(&together);
  return NULL;
}

int main(void) {
  pthread_t threads[THREADS];
  if (pthread_barrier_init(&together, NULL, THREADS) != 0) abort();
  for (size_t i = 0; i < THREADS; i++) {
    if (pthread_create(&threads[i], NULL, work, (void *)i) != 0) abort();
  }
  for (size_t i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
  for (int i = 0; i < SHELVES; i++) check_and_free(shelf[i]);
  puts("done");
  return 0;
}
