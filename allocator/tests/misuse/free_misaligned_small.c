/* expect: misaligned-free */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(void) {
    char *p = malloc(200);
    free(p + 1);
    puts("not caught");
    return 0;
}
