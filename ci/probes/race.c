/* Two threads write one object, and nothing orders them: helgrind has to find it, in an object of our
   library's as in any other. */
#include <pthread.h>
#include <stdlib.h>

static void *count(void *counter) {
  for (int i = 0; i < 100; i++) ++*(volatile int *)counter;
  return NULL;
}

int main(void) {
  int *counter = calloc(1, sizeof *counter);
  pthread_t threads[2];
  for (int i = 0; i < 2; i++) {
    if (pthread_create(&threads[i], NULL, count, counter) != 0) abort();
  }
  for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
  free(counter);
  return 0;
}
