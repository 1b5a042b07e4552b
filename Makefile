# Every target runs from a fresh clone with nothing but Rust installed.
.PHONY: test lint doc quickstart ci

# All tests of the workspace. The process tests start brokers built by this same command; strace and
# a mount of a small tmpfs are used where the machine offers them (the tests say so when it does not).
test:
	cargo test --workspace --locked --no-fail-fast

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

doc:
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

quickstart:
	cargo run --release --locked --bin grus -- quickstart

# What a merge must pass; prints its own time.
ci:
	.ci/run
