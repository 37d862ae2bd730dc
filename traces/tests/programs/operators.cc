/* Every form of operator new and delete, a known number of times; and memory that is not to be had,
 * which has to be thrown as std::bad_alloc through whatever is preloaded. */
#include <cstddef>
#include <new>

struct alignas(64) Wide { char bytes[200]; };

__attribute__((noinline)) static void *keep(void *pointer) {
    asm volatile("" : : "r"(pointer) : "memory");
    return pointer;
}

int main() {
    for (int i = 0; i < 1000; i++) delete static_cast<int *>(keep(new int(i)));
    for (int i = 0; i < 500; i++) delete static_cast<Wide *>(keep(new Wide));
    for (int i = 0; i < 300; i++) delete[] static_cast<char *>(keep(new char[5000]));
    for (int i = 0; i < 200; i++) {
        operator delete[](keep(new (std::nothrow) char[70000]), std::nothrow);
    }
    int caught = 0;
    const std::size_t too_much = std::size_t(1) << 62;
    try { keep(operator new(too_much)); } catch (const std::bad_alloc &) { caught++; }
    try { keep(operator new[](too_much)); } catch (const std::bad_alloc &) { caught++; }
    try { keep(operator new(too_much, std::align_val_t(64))); } catch (const std::bad_alloc &) { caught++; }
    if (operator new(too_much, std::nothrow) != nullptr) return 1;
    return caught == 3 ? 0 : 2;
}
