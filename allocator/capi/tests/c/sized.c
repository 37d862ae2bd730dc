/* C23's sized frees are declared by the header in every standard of C and C++, whether libc knows them or not. */
#include "check.h"
#ifdef __cplusplus
/* As libc does that has them. */
extern "C" void free_sized(void *ptr, size_t size) noexcept;
extern "C" void free_aligned_sized(void *ptr, size_t alignment, size_t size) noexcept;
#endif
#include <allocator.h>

int main(void)
{
    free_sized(malloc(opaque(100)), 100);
    free_aligned_sized(aligned_alloc(opaque(64), opaque(128)), 64, 128);
    return 0;
}
