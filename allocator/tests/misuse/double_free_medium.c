/* expect: double-free */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(void) {
    char *p = malloc(50000);
    malloc(50000);
    free(p);
    free(p);
    puts("not caught");
    return 0;
}
