# The quick start: a few lines of cargo per target. Everything can as well be called without make.
.PHONY: build test test-unit test-threading valgrind helgrind benchmark check

# liballocator.so and liballocator.a in target/capi/preload/; DEBUG=1 builds them for a debugger, in target/capi/debug/.
# The feature `preload` is for shared objects only.
build:
	cargo rustc --package allocator-capi --target-dir target/capi $(if $(DEBUG),,--profile preload --features preload) --crate-type cdylib
	cargo rustc --package allocator-capi --target-dir target/capi $(if $(DEBUG),,--profile preload) --crate-type staticlib

test:
	cargo test --workspace

test-unit:
	cargo test --workspace --lib

test-threading:
	cargo test --package allocator --package allocator-capi thread

valgrind:
	cargo ci valgrind

# Threads of a C++ program under helgrind, with malloc ours, in the build that tells valgrind what is an object.
helgrind:
	cargo build --package allocator-capi --features valgrind --target-dir target/valgrind
	g++ -g -O1 -pthread allocator/capi/tests/c/threads.cc -o target/valgrind/threads
	LD_PRELOAD=$(CURDIR)/target/valgrind/debug/liballocator.so \
	    valgrind --tool=helgrind --soname-synonyms=somalloc=nouserintercepts --error-exitcode=99 target/valgrind/threads

benchmark:
	cargo run --release

check:
	cargo clippy --workspace --all-targets -- -D warnings
