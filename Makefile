.PHONY: test check demo constraints native
test: ; uv run pytest -q
check: ; uv run ruff check . && uv run ruff format --check . && uv run mypy
demo: ; uv run smgrid demo
constraints: ; uv pip compile -q --no-annotate --no-header --extra test pyproject.toml -o constraints.txt
native: ; uv run --no-project --with "setuptools>=77" python -c "import setuptools; setuptools.setup()" build_ext --inplace
