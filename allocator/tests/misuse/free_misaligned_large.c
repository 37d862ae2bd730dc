/* expect: misaligned-free */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(void) {
    char *p = malloc(1 << 20);
    free(p + 8);
    puts("not caught");
    return 0;
}
