// sized.c as C++, where a libc that declares the sized frees says noexcept.
#include "sized.c"
