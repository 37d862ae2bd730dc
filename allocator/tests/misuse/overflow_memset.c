/* expect: overflow needs: header */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(void) {
    char *p = malloc(100);
    malloc(100);
    memset(p, 0x41, 132);
    free(p);
    puts("not caught");
    return 0;
}
