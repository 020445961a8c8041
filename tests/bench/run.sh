#!/usr/bin/env bash
# Builds for release, then measures Dagwright and its peers side by side. See bench.py, dagbag.py, daemon.py,
# followed.py and airflow.py for what and how.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
tests/scripts/tools.sh python
tests/scripts/tools.sh dagbag
tests/scripts/tools.sh postgres
tests/scripts/tools.sh kafka
tools=${DAGWRIGHT_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/dagwright}
export DAGWRIGHT_TOOLS="$tools"
cargo build --locked --release --bins -p dagwright-daemon -p dagwright-dataplane
cargo bench --locked -p dagwright-tests --bench plan
bin=${CARGO_TARGET_DIR:-target}/release
"$tools/tools/bin/python" tests/bench/bench.py --bin "$bin" "$@"
"$tools/tools/bin/python" tests/bench/dagbag.py
"$tools/tools/bin/python" tests/bench/daemon.py --bin "$bin"
"$tools/tools/bin/python" tests/bench/followed.py --bin "$bin"
"$tools/tools/bin/python" tests/bench/airflow.py --bin "$bin"
