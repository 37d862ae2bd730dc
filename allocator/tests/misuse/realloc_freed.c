/* expect: double-free */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(void) {
    char *p = malloc(100);
    malloc(100);
    free(p);
    realloc(p, 200);
    puts("not caught");
    return 0;
}
