# Every target runs from a fresh clone with nothing but Rust installed.
.PHONY: test browser lint doc quickstart ci

# All tests of the workspace. The process tests start brokers built by this same command; strace and
# a mount of a small tmpfs are used where the machine offers them (the tests say so when it does not).
test: browser
	cargo test --workspace --locked --no-fail-fast

# The page is tested in Debian's Chromium. Installs it where that is possible; where it is not, the tests of
# the page say what to do. GRUS_TEST_WITHOUT_CHROMIUM=1 leaves them out.
browser:
	@[ "$(GRUS_TEST_WITHOUT_CHROMIUM)" = 1 ] || command -v chromedriver >/dev/null || .ci/install chromium chromium-driver fonts-dejavu-core

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
