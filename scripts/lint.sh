#!/usr/bin/env bash
# Runs every check and then says which failed. A check that passed prints one line.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

bin=$PWD/${VENV:-.venv}/bin
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
failed=()

check() {
    local name=$1
    shift
    if "$@" >"$scratch/output" 2>&1; then
        # A check that had nothing to look at says so in a line of its own.
        printf 'ok      %s%s\n' "$name" "$(sed -n 's/^skipped: / (skipped: /p' "$scratch/output" | sed 's/$/)/')"
    else
        printf 'FAILED  %s\n' "$name"
        sed 's/^/        /' "$scratch/output"
        failed+=("$name")
    fi
}

# Type checking sees the client and the server as two halves with nothing in common but the stubs.
types() { "$bin/mypy" --no-error-summary protos client server tests examples scripts; }

protocol_breaks() {
    local base image=protos/released.binpb
    # What the last release had, kept in the repository: it needs no history.
    if [ -f "$image" ] && ! "$bin/buf" breaking --against "$image"; then
        echo "(compared with the last release's, $image)"
        return 1
    fi
    base=$(scripts/protocol_base.sh) || return
    [ -n "$base" ] || return 0
    mkdir "$scratch/base" && git archive "$base" buf.yaml protos | tar -x -C "$scratch/base" || return
    "$bin/buf" breaking --against "$scratch/base" && return
    echo "(compared with $(git log -1 --format='%h %s' "$base"))"
    return 1
}

stubs() {
    scripts/generate_stubs.sh "$scratch/stubs" || return
    local stub
    for stub in protos/checkpointd/v1/*_pb2*; do
        mkdir -p "$scratch/committed/checkpointd/v1" && cp "$stub" "$scratch/committed/checkpointd/v1/" || return
    done
    diff -r "$scratch/committed" "$scratch/stubs" >"$scratch/difference" && return
    head -20 "$scratch/difference" | cut -c 1-120
    echo "the stubs are not those of the .proto files: run \`make protos\` and commit the result"
    return 1
}

scripts_lint() {
    if [ ! -x "$bin/shellcheck" ]; then
        echo "skipped: shellcheck has no wheel for this machine"
        return
    fi
    "$bin/shellcheck" scripts/*.sh deploy/*.sh .ci/run
}

dockerfile() {
    if [ ! -f Dockerfile ]; then
        echo "skipped: there is no Dockerfile"
        return
    fi
    "$bin/hadolint" --no-color Dockerfile
}

check "style (ruff check)" "$bin/ruff" check --quiet --output-format concise .
check "format (ruff format)" "$bin/ruff" format --quiet --diff .
check "types (mypy --strict)" types
check "import rules (import-linter)" env PYTHONPATH=. "$bin/lint-imports" --no-logo
check "house rules" "$bin/python" scripts/house_rules.py
check "protocol style (buf lint)" "$bin/buf" lint
check "protocol stays compatible (buf breaking)" protocol_breaks
check "stubs belong to the protocol" stubs
check "shell scripts (shellcheck)" scripts_lint
check "Dockerfile (hadolint)" dockerfile
check "known vulnerabilities (pip-audit)" "$bin/python" -m scripts.audit

if [ ${#failed[@]} -gt 0 ]; then
    printf 'lint: %d failed\n' "${#failed[@]}"
    exit 1
fi
echo "lint: all passed"
