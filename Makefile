.PHONY: test check demo constraints native sanitize
test: ; uv run pytest -q
check: ; uv run ruff check . && uv run ruff format --check . && uv run mypy
demo: ; uv run smgrid demo
constraints: ; uv pip compile -q --no-annotate --no-header --extra test pyproject.toml -o constraints.txt
native: ; uv run --no-project --with "setuptools>=77" python -c "import setuptools; setuptools.setup()" build_ext --inplace
# the kernels' tests, then some thousand broken models, under AddressSanitizer and UBSan
SANITIZED = LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libstdc++.so)" ASAN_OPTIONS=detect_leaks=0
sanitize:
	rm -rf build/sanitized && mkdir -p build/sanitized
	cp -r smgrid tests docs pyproject.toml README.md LICENSE build/sanitized && rm -f build/sanitized/smgrid/*.so
	cd build/sanitized && CFLAGS="-g -Wall -Wextra -Werror -fsanitize=address,undefined -fno-sanitize-recover=all" \
	uv run --no-project --with "setuptools>=77" python -c "import setuptools; setuptools.setup()" build_ext --inplace
	cd build/sanitized && $(SANITIZED) PYTHONPATH=. uv run --project ../.. python -m pytest -q -n 0 tests/test_kernels.py
	cd build/sanitized && $(SANITIZED) PYTHONPATH=. uv run --project ../.. python tests/fuzz_kernels.py 5000
