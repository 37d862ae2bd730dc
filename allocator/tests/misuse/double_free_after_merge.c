/* expect: double-free */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(void) {
    char *p = malloc(1100), *q = malloc(1100);
    malloc(1100);
    free(p);
    free(q);
    free(q);
    puts("not caught");
    return 0;
}
