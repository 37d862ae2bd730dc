/* expect: corrupt-header needs: header */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(void) {
    char *p = malloc(100);
    p[-1] ^= 0x5a;
    free(p);
    puts("not caught");
    return 0;
}
