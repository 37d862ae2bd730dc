/* expect: double-free */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(void) {
    char *p = malloc(100), *q[50];
    for (int i = 0; i < 50; i++) q[i] = malloc(100);
    free(p);
    for (int i = 1; i < 50; i += 2) free(q[i]);
    free(p);
    puts("not caught");
    return 0;
}
