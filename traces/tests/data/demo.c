#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>
#ifdef MTRACE
#include <mcheck.h>
#endif
/* Small on purpose: every call of the family, and objects that cross threads. */
static void *shared[16];
static void *work(void *argument) {
  long n = (long)argument;
  for (long i = 0; i < 12; i++) {
    char *p = malloc(16 * n + i);
    p = realloc(p, 64 + i * 8);
    if (i % 3 == 0) shared[n * 4 + i / 3] = p; else free(p);
  }
  return NULL;
}
int main(void) {
#ifdef MTRACE
  mtrace();
#endif
  void *c = calloc(4, 25), *m = memalign(64, 100), *a = aligned_alloc(32, 96), *v = valloc(10);
  free(NULL);
  free(c);
  c = realloc(NULL, 77);
  c = realloc(c, 0);
#ifdef ONE
  work((void *)1L); work((void *)2L);
#else
  pthread_t t[2];
  for (long i = 0; i < 2; i++) pthread_create(&t[i], NULL, work, (void *)(i + 1));
  for (int i = 0; i < 2; i++) pthread_join(t[i], NULL);
#endif
  for (int i = 0; i < 16; i++) free(shared[i]);
  free(m); free(v); (void)a; (void)malloc(10);
  return 0;
}
