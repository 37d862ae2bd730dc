/* expect: overflow needs: header */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(void) {
    char *p = malloc(24);
    malloc(24);
    p[24] ^= 0x5a;
    free(p);
    puts("not caught");
    return 0;
}
