#!/usr/bin/env bash
# Builds the virtual environment $VENV with everything in it, unless it is there and up to date: built from the same
# pyproject files and, where the caller insists (--exactly), by the same Python as $PYTHON.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=${VENV:-.venv}
python=${PYTHON:-python3}
stamp=$venv/.ready
projects=(pyproject.toml protos/pyproject.toml client/pyproject.toml server/pyproject.toml)

say() { printf '%s\n' "setup: $*" >&2; }

version_of() { "$1" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null || true; }

# Before anything is removed.
check_python() {
    local found
    if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        found=$(version_of "$python")
        say "Python 3.11 or later is needed, $python is ${found:-not there}; name another: make setup PYTHON=python3.12"
        exit 1
    fi
}

# By content, not by time: a checkout or a clone gives files any time it likes. An editable install knows its folder, so
# a copied environment is stale too.
wanted() { { pwd -P; cat "${projects[@]}" scripts/setup.sh; } | cksum; }

if [ "${1:-}" = --exactly ] && [ -x "$venv/bin/python" ] &&
    [ "$(version_of "$venv/bin/python")" != "$(version_of "$python")" ]; then
    check_python
    say "$venv has Python $(version_of "$venv/bin/python"), $python is $(version_of "$python"): building it anew"
    rm -rf "$venv"
fi
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$(wanted)" ] && [ -n "$(version_of "$venv/bin/python")" ]; then
    exit 0
fi

if [ -z "$(version_of "$venv/bin/python")" ]; then
    check_python
    say "making $venv with Python $(version_of "$python")"
    rm -rf "$venv"
    if ! "$python" -m venv "$venv"; then
        rm -rf "$venv"
        say "$python can't make virtual environments (on Debian and Ubuntu: apt install python3-venv)"
        exit 1
    fi
fi
say "installing checkpointd, its client and the development tools into $venv (a minute or so on the first time)"
rm -f "$stamp"
pip=("$venv/bin/python" -m pip --disable-pip-version-check --quiet --quiet --no-input)
"${pip[@]}" install "pip>=25.1" # --group came with it
"${pip[@]}" install --group dev -e ./protos -e "./client[encryption]" -e "./server[embedded]"
wanted >"$stamp"
say "$venv is ready"
