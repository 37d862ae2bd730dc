# The quick start, one line of cargo per target. Everything can as well be called without make.
.PHONY: build test test-unit test-threading valgrind helgrind benchmark check

# liballocator.so and liballocator.a below target/capi/; DEBUG=1 builds them unoptimised.
build:
	cargo build --package allocator-capi --target-dir target/capi $(if $(DEBUG),,--profile preload --features preload)

test:
	cargo test --workspace

test-unit:
	cargo test --workspace --lib

test-threading:
	cargo test --package allocator --package allocator-capi thread

valgrind:
	cargo ci valgrind

# Threads of a C++ program under helgrind, with malloc ours. Its false alarms on atomics are not ours to fix, so
# the exit status says only whether the program held.
helgrind: build
	g++ -g -O1 -pthread allocator/capi/tests/c/threads.cc -o target/capi/threads
	LD_PRELOAD=$(CURDIR)/target/capi/$(if $(DEBUG),debug,preload)/liballocator.so \
	    valgrind --tool=helgrind --soname-synonyms=somalloc=nouserintercepts --error-exitcode=0 target/capi/threads

benchmark:
	cargo run --release

check:
	cargo clippy --workspace --all-targets -- -D warnings
