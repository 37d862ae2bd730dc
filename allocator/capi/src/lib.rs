//! `liballocator.so` and `.a`: the C and C++ face of the allocator.
