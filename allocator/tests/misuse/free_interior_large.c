/* expect: interior-free */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(void) {
    char *p = malloc(1 << 20);
    memset(p, 0x41, 1 << 20);
    free(p + 4096 * 3);
    puts("not caught");
    return 0;
}
