#!/usr/bin/env bash
# Runs tests of the client with the oldest releases that its pyproject.toml allows, in an environment of their own.
# .venv has the newest. Arguments go to pytest; without any it runs those that touch what dependencies do.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=.build/oldest
python=${PYTHON:-python3}
mkdir -p .build
"${VENV:-.venv}/bin/python" - >.build/oldest.txt <<'EOF'
import re, tomllib

for project in ("client", "protos"):
    with open(f"{project}/pyproject.toml", "rb") as file:
        for requirement in tomllib.load(file)["project"]["dependencies"]:
            if bound := re.match(r"([\w-]+)>=([\w.]+)", requirement):
                print(f"{bound[1]}=={bound[2]}")
# The oldest that the tests are for, and what belongs to the grpcio above.
print("langgraph==1.2.0")
EOF
sort -u -o .build/oldest.txt .build/oldest.txt
if [ ! -f "$venv/.ready" ] || ! diff -q .build/oldest.txt "$venv/.ready" >/dev/null; then
    rm -rf "$venv"
    "$python" -m venv "$venv"
    pip=("$venv/bin/python" -m pip --disable-pip-version-check --quiet --quiet --no-input)
    "${pip[@]}" install "pip>=25.1"
    "${pip[@]}" install --constraint .build/oldest.txt -e ./protos -e "./client[encryption]" -e "./server[embedded]" \
        langgraph pytest pytest-asyncio pytest-timeout pytest-xdist hypothesis psutil anyio pycryptodome \
        langgraph-checkpoint-conformance opentelemetry-instrumentation-grpc
    cp .build/oldest.txt "$venv/.ready"
fi
[ $# -gt 0 ] || set -- tests/client tests/conformance tests/e2e/test_pruning.py tests/e2e/test_delta_channels.py \
    tests/concurrency/test_nested_refusals.py
"$venv/bin/python" -m pytest -q "$@"
