#!/usr/bin/env bash
# Runs the tests of Airflow on the versions that `make test` leaves out, one after the other, and writes what became of them into
# docs/airflow-compat.md.
#
#   compat.sh BIN_DIR [VERSION…]    the folder with dagwright and dagwright-task; by default every version that tools.sh has a lock file of
#
# COLUMN="client contract" runs that column alone. Fails when a test did; the file is written anyhow, and then wants a remark.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
bin=$(cd "${1:?the folder with the programs}" && pwd)
shift
tools=${DAGWRIGHT_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/dagwright}
export DAGWRIGHT_TOOLS="$tools" DAGWRIGHT_BIN_DIR="$bin"
failed=()

# Column of the matrix, test program, and the test's name; % is 2 or 3.
cells=(
    "golden DAGs|airflow|goldens_import_into_airflow_%"
    "package tests|airflow|operators_pass_their_tests_in_airflow_%"
    "real data|airflow|real_data::goldens_load_real_data_in_airflow_%"
    "client contract|airflow_client|airflow_%_keeps_the_contract"
    "end to end|airflow_loop|airflow_%_runs_what_kafka_asks_for"
)

if (($# == 0)); then
    for file in tests/scripts/requirements/airflow-*.txt; do
        file=${file##*/airflow-}
        case ${file%.txt} in 2.11.2 | 3.3.2) ;; *) set -- "$@" "${file%.txt}" ;; esac
    done
fi

results=$(mktemp)
trap 'rm -f "$results" "$results.log"' EXIT
for version; do
    tests/scripts/tools.sh airflow "$version"
    major=${version%%.*}
    for cell in "${cells[@]}"; do
        IFS='|' read -r column program name <<<"$cell"
        [[ $column == "${COLUMN:-$column}" ]] || continue
        printf '\n== %s on Airflow %s\n' "$column" "$version"
        outcome=pass
        # A test of another name would pass, as none is run: so it must be one.
        { env "DAGWRIGHT_AIRFLOW_$major=$version" cargo test --locked -p dagwright-tests --test "$program" -- --exact "${name/\%/$major}" 2>&1 |
            tee "$results.log" && grep -q '^test result: ok. 1 passed' "$results.log"; } || outcome=fail
        printf '%s\t%s\t%s\n' "$version" "$column" "$outcome" >>"$results"
        [[ $outcome == pass ]] || failed+=("$column on $version;")
    done
done

DAGWRIGHT_COMPAT_RESULTS="$results" cargo test --quiet --locked -p dagwright-tests --test tidy -- the_matrix_of_airflows_is_current
cargo test --quiet --locked -p dagwright-tests --test tidy -- compat::
if ((${#failed[@]})); then
    printf '\nfailed: %s\n' "${failed[*]}" >&2
    exit 1
fi
