/* expect: corrupt-header needs: header */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(void) {
    malloc(100);
    char *p = malloc(100);
    memset(p - 8, 0x41, 8);
    free(p);
    puts("not caught");
    return 0;
}
