/* One fault of each kind that memcheck finds: `cargo ci valgrind` looks for all of them, on the build of
   the library that tells valgrind what is an object. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(void) {
  int sum = 0;
  volatile char *bytes = malloc(21);
  bytes[21] = 1; /* behind the object */
  memset((char *)bytes, 1, 21);
  free((char *)bytes);
  sum += bytes[7]; /* after its free */
  volatile int *words = malloc(40);
  if (words[3] > 0) puts("by chance"); /* never written */
  free((int *)words);
  free((int *)words); /* a second time */
  bytes = malloc(5000);
  bytes = NULL; /* lost */
  int *grown = realloc(calloc(10, sizeof(int)), 400);
  if (grown[9] > 0) puts("never"); /* zero, moved: sound */
  free(grown);
  return sum == 4242;
}
