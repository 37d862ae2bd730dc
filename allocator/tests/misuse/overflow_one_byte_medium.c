/* expect: overflow needs: header */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(void) {
    char *p = malloc(5000);
    malloc(24);
    p[5000] ^= 0x5a;
    free(p);
    puts("not caught");
    return 0;
}
