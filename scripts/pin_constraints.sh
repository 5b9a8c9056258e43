#!/usr/bin/env bash
# Pins what the server image is made of: the newest releases that the pyproject files allow, each with the hashes of its
# files. Writes server/constraints.txt (what the server imports) and server/build-constraints.txt (what builds it). Neither
# names an index: the hashes say what is wanted, wherever it comes from.
set -euo pipefail
cd "$(dirname "$0")/.."

tools=.build/uv-0.13.8
if [ ! -f "$tools/.ready" ]; then
    echo "pins: installing the pinned resolver into $tools" >&2
    rm -rf "$tools"
    "${PYTHON:-python3}" -m venv "$tools"
    "$tools/bin/python" -m pip --disable-pip-version-check --quiet --quiet --no-input install "uv==0.13.8"
    touch "$tools/.ready"
fi

# Our own distributions are built from the sources beside the pins.
requirements() {
    "$tools/bin/python" - "$1" <<'EOF'
import sys, tomllib

for folder in ("protos", "server"):
    with open(f"{folder}/pyproject.toml", "rb") as file:
        project = tomllib.load(file)
    needs = project["build-system"]["requires"] if sys.argv[1] == "build" else project["project"]["dependencies"]
    print(*(need for need in needs if not need.startswith("checkpointd")), sep="\n")
EOF
}

pin() {
    local out=$2
    {
        echo "# $3"
        echo "# Made by \`make pins\`. Don't edit."
        # For every Python that the server runs on, and every platform.
        requirements "$1" | "$tools/bin/uv" pip compile --quiet --no-config --universal --python-version 3.11 \
            --generate-hashes --no-annotate --no-header --no-emit-index-url --no-emit-find-links -
    } >.build/pins
    mv .build/pins "$out"
    printf '%s: %s\n' "$out" "$(grep -c '==' "$out") packages"
}

pin run server/constraints.txt "What the server image holds beside checkpointd itself."
pin build server/build-constraints.txt "What the server image is built with; none of it stays in the image."
