/* expect: foreign-free */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(void) {
    static _Alignas(16) char s[64];
    malloc(100);
    free(s);
    puts("not caught");
    return 0;
}
