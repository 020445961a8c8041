#!/usr/bin/env bash
# Everything that reads the sources without running them. Warnings count as errors.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
here=tests/scripts
"$here/tools.sh" python
"$here/tools.sh" lint
tools=${DAGWRIGHT_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/dagwright}

step() { printf '\n== %s\n' "$*"; }

step rustfmt
cargo fmt --all --check

step clippy
cargo clippy --locked --workspace --all-targets -- --deny warnings

step cargo-deny
PATH="$(compgen -G "$tools/cargo-deny-*/bin" | sort -V | tail -n 1):$PATH" cargo deny --locked check bans licenses sources

step ruff
"$tools/tools/bin/ruff" check .
"$tools/tools/bin/ruff" format --check .

step mypy
"$here/tools.sh" airflow 3.3.2 # Types are checked against it.
(cd deploy/airflow && "$tools/tools/bin/mypy" --python-executable "$tools/airflow-3.3.2/bin/python" src)

step shellcheck
git ls-files '*.sh' .ci/run | xargs "$tools/tools/bin/shellcheck" -x

step docker-compose
"$here/tools.sh" compose
"$(compgen -G "$tools/docker-compose-*/bin/docker-compose" | sort -V | tail -n 1)" -f deploy/compose.yaml config --quiet
