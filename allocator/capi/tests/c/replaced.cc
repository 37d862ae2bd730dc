/* A program with operators of its own: SINGLE, ARRAY, ALIGNED and ALIGNED_ARRAY say which pairs of new and delete it
 * defines. All other forms, which it does not define, are to end in these: each delete gets what its new made, and no
 * other object. */
#include "check.h"
#include <algorithm>
#include <dlfcn.h>
#include <memory>
#include <new>
#include <vector>

static const size_t MARK = 0x5ca1ab1e0ddba11;
/* In front of every object of the program's own stand its mark and kind. */
struct Kind {
    size_t mark;
    int made, freed;

    void *make(size_t size, size_t front) {
        char *block = (char *)(front <= 16 ? malloc(size + front) : aligned_alloc(front, size + front));
        if (block == nullptr) throw std::bad_alloc();
        made++;
        size_t *head = (size_t *)(block + front) - 1;
        *head = mark;
        return block + front;
    }
    void free_it(void *p, size_t front) {
        if (p == nullptr) return;
        CHECK(((size_t *)p)[-1] == mark);
        ((size_t *)p)[-1] = 0;
        freed++;
        free((char *)p - front);
    }
    void is_even(bool used) {
        CHECK(made == freed);
        CHECK((made > 0) == used);
        made = freed = 0;
    }
};
static Kind single{MARK, 0, 0}, array{MARK + 1, 0, 0}, aligned{MARK + 2, 0, 0}, aligned_array{MARK + 3, 0, 0};

#ifdef SINGLE
void *operator new(size_t size) { return single.make(size, 16); }
void operator delete(void *p) noexcept { single.free_it(p, 16); }
static const bool has_single = true;
#else
static const bool has_single = false;
#endif
#ifdef ARRAY
void *operator new[](size_t size) { return array.make(size, 16); }
void operator delete[](void *p) noexcept { array.free_it(p, 16); }
static const bool has_array = true;
#else
static const bool has_array = false;
#endif
#ifdef ALIGNED
void *operator new(size_t size, std::align_val_t align) { return aligned.make(size, (size_t)align); }
void operator delete(void *p, std::align_val_t align) noexcept { aligned.free_it(p, (size_t)align); }
static const bool has_aligned = true;
#else
static const bool has_aligned = false;
#endif
#ifdef ALIGNED_ARRAY
void *operator new[](size_t size, std::align_val_t align) { return aligned_array.make(size, (size_t)align); }
void operator delete[](void *p, std::align_val_t align) noexcept { aligned_array.free_it(p, (size_t)align); }
static const bool has_aligned_array = true;
#else
static const bool has_aligned_array = false;
#endif

/* Objects of arrays go to the forms for single ones where arrays have none of their own. */
static void end_of_part(bool is_array, bool is_aligned) {
    bool own = is_aligned ? has_aligned_array : has_array;
    single.is_even(has_single && !is_aligned && !(is_array && own));
    array.is_even(has_array && !is_aligned && is_array);
    aligned.is_even(has_aligned && is_aligned && !(is_array && own));
    aligned_array.is_even(has_aligned_array && is_aligned && is_array);
}

int main() {
    const std::nothrow_t &quietly = std::nothrow;
    for (size_t size : {size_t(1), size_t(40), size_t(3000), size_t(70000), size_t(3) << 20}) {
        size = opaque(size);
        ::operator delete(::operator new(size));
        end_of_part(false, false);
        ::operator delete(::operator new(size), size);
        end_of_part(false, false);
        ::operator delete(::operator new(size, quietly), quietly);
        end_of_part(false, false);
        ::operator delete[](::operator new[](size));
        end_of_part(true, false);
        ::operator delete[](::operator new[](size), size);
        end_of_part(true, false);
        ::operator delete[](::operator new[](size, quietly), quietly);
        end_of_part(true, false);
        for (size_t value : {size_t(64), size_t(4096)}) {
            const auto align = std::align_val_t(value);
            ::operator delete(::operator new(size, align), align);
            end_of_part(false, true);
            ::operator delete(::operator new(size, align), size, align);
            end_of_part(false, true);
            ::operator delete(::operator new(size, align, quietly), align, quietly);
            end_of_part(false, true);
            ::operator delete[](::operator new[](size, align), align);
            end_of_part(true, true);
            ::operator delete[](::operator new[](size, align), size, align);
            end_of_part(true, true);
            ::operator delete[](::operator new[](size, align, quietly), align, quietly);
            end_of_part(true, true);
        }
    }
    /* What the C++ library makes and frees by itself. */
    {
        std::vector<int> numbers(1000);
        for (int i = 0; i < 1000; i++) numbers[i] = (i * 7919) % 1000;
        std::stable_sort(numbers.begin(), numbers.end());
        for (int i = 0; i < 1000; i++) CHECK(numbers[i] == i);
    }
    end_of_part(false, false);
    /* A form that throws: the nothrow one makes null of it. */
    const size_t impossible = opaque(SIZE_MAX / 2 - 10000);
    CHECK(::operator new(impossible, quietly) == nullptr);
    CHECK(::operator new[](impossible, quietly) == nullptr);
    CHECK(::operator new(impossible, std::align_val_t(64), quietly) == nullptr);
    CHECK(::operator new[](impossible, std::align_val_t(64), quietly) == nullptr);

    int (*check)();
    *(void **)&check = dlsym(RTLD_DEFAULT, "allocator_check");
    CHECK(check == nullptr || check() == 0);
    return 0;
}
