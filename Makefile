# For people; each target is one line of meson or a script underneath.
.PHONY: build test full format bench serve

build:
	@[ -f build/release/build.ninja ] || meson setup build/release --buildtype=release >/dev/null
	@ninja -C build/release

test:
	tests/run.sh

full:
	tests/run.sh --full

serve: build
	build/release/server/galley serve

bench: build
	build/release/server/galley bench --model config/demo/target.gguf

format:
	git ls-files '*.c' '*.h' | xargs clang-format -i
