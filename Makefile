# The quick start, one line of cargo per target. Everything can as well be called without make.
.PHONY: build test test-unit test-threading valgrind benchmark check

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

benchmark:
	cargo run --release

check:
	cargo clippy --workspace --all-targets -- -D warnings
