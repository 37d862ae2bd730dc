/* expect: interior-free */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(void) {
    char *p = malloc(200);
    memset(p, 0, 200);
    realloc(p + 32, 400);
    puts("not caught");
    return 0;
}
