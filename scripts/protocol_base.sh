#!/usr/bin/env bash
# Prints the commit whose protocol the present one must stay compatible with, or says why there is none:
# - $PROTOCOL_BASE, if set;
# - the newest release (tag v*);
# - before the first release: where this branch left main, or, on main, the newest commit with other .proto files than
#   those at hand. There a commit may break the protocol if its message has a line "Protocol-Break: <why>".
set -euo pipefail
cd "$(dirname "$0")/.."

none() {
    echo "skipped: $*" >&2
    exit 0
}

if [ -n "${PROTOCOL_BASE:-}" ]; then
    git rev-parse --verify --quiet "$PROTOCOL_BASE^{commit}"
    exit
fi
git rev-parse --verify --quiet HEAD >/dev/null 2>&1 || none "git has no history here"

release=$(git describe --tags --abbrev=0 --match 'v*' 2>/dev/null || true)
if [ -n "$release" ]; then
    git rev-parse --verify "$release^{commit}"
    exit
fi

differs() { ! git diff --quiet "$1" -- 'protos/*.proto'; }

base=
for main in origin/main main; do
    fork=$(git merge-base HEAD "$main" 2>/dev/null || true)
    if [ -n "$fork" ] && [ "$fork" != "$(git rev-parse HEAD)" ]; then
        base=$fork
        break
    fi
done
if [ -z "$base" ]; then
    if differs HEAD; then
        base=$(git rev-parse HEAD)
    else
        # The commit that gave the protocol its present shape, and what was before it.
        last=$(git log -1 --format=%H -- 'protos/*.proto')
        base=$(git rev-parse --verify --quiet "$last^" || true)
    fi
fi
[ -n "$base" ] || none "this is the protocol's first version, or the clone is too shallow to tell"
git ls-tree -r --name-only "$base" -- protos | grep '\.proto$' >/dev/null || none "there was no protocol before this one"
# Not `grep -q`: it would leave `git log` writing into a closed pipe.
if git log --format=%B "$base..HEAD" -- 'protos/*.proto' | grep '^Protocol-Break: ' >/dev/null; then
    none "a commit since $(git rev-parse --short "$base") breaks the protocol on purpose"
fi
echo "$base"
