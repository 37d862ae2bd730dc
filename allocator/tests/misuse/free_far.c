/* expect: foreign-free */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(void) {
    malloc(100);
    free((void *)0x10000);
    puts("not caught");
    return 0;
}
