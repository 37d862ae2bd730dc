/* expect: use-after-free needs: header */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(void) {
    char *p = malloc(100), *q = malloc(100);
    malloc(100);
    free(p);
    p[0] ^= 0x5a;
    free(q);
    for (int i = 0; i < 3; i++) malloc(100);
    puts("not caught");
    return 0;
}
