.PHONY: test check demo constraints
test: ; uv run pytest -q
check: ; uv run ruff check . && uv run ruff format --check . && uv run mypy
demo: ; uv run smgrid demo
constraints: ; uv pip compile -q --no-annotate --no-header --extra test pyproject.toml -o constraints.txt
