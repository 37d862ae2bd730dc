/* expect: interior-free */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(void) {
    char *p = malloc(200);
    memset(p, 0, 200);
    free(p + 16);
    puts("not caught");
    return 0;
}
