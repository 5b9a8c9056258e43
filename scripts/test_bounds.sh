#!/usr/bin/env bash
# Runs tests of client and server with the oldest releases that the pyproject.toml files allow, or with the newest, in an
# environment of their own: .venv may have others.
#
#   scripts/test_bounds.sh oldest
#   scripts/test_bounds.sh newest tests/client -x
#
# Behind the first argument go pytest's own; without any it runs the tests that touch what dependencies do.
set -euo pipefail
cd "$(dirname "$0")/.."

which=${1:-oldest}
[ $# -eq 0 ] || shift
python=${PYTHON:-python3}
# One for each Python: 3.11's is not 3.13's.
name=$which-$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
venv=.build/$name
constraints=.build/$name.txt
mkdir -p .build
case $which in
oldest) "$python" -m scripts.oldest_bounds >"$constraints" ;;
newest) date +%F >"$constraints" ;; # made anew each day
*) echo "usage: $0 [oldest|newest] [pytest's arguments]" >&2 && exit 2 ;;
esac
if ! diff -q "$constraints" "$venv/.ready" >/dev/null 2>&1; then
    rm -rf "$venv"
    "$python" -m venv "$venv"
    pip=("$venv/bin/python" -m pip --disable-pip-version-check --quiet --quiet --no-input)
    "${pip[@]}" install "pip>=25.1"
    [ "$which" = newest ] || pip+=(install --constraint "$constraints")
    [ "$which" = oldest ] || pip+=(install)
    "${pip[@]}" -e ./protos -e "./client[encryption]" -e "./server[embedded]" \
        langgraph pytest pytest-asyncio pytest-timeout pytest-xdist pytest-random-order hypothesis psutil anyio h2 \
        packaging pycryptodome langgraph-checkpoint-conformance opentelemetry-instrumentation-grpc starlette
    cp "$constraints" "$venv/.ready"
fi
"$venv/bin/python" -m pip --disable-pip-version-check list --format freeze |
    grep -iE "^($("$python" -m scripts.oldest_bounds | sed 's/==.*//' | paste -sd '|'))=="
[ $# -gt 0 ] || set -- -m "not long" tests/conformance tests/concurrency/test_nested_refusals.py \
    tests/client/test_{connections,encryption,failed_puts,handover,held_objects,object,other_versions,pipeline}.py \
    tests/client/test_{portable,replicas,retries,stream_ends,streaming_app,task_writes,threads}.py \
    tests/e2e/test_{delta_channels,fidelity,pruning}.py tests/rpc/test_{round_trip,wire}.py \
    tests/store/test_{puts,reads,setup}.py tests/security/test_tokens.py
"$venv/bin/python" -m pytest -q -n auto --dist worksteal "$@"
