#!/usr/bin/env bash
# Builds the documentation site in .build/site, with tools of its own (the dependency group `docs`). Warnings are errors.
# Arguments go to MkDocs: `scripts/docs.sh serve` shows the site and builds it again when a page changes.
set -euo pipefail
cd "$(dirname "$0")/.."

tools=.build/docs-tools
stamp=$tools/.ready
wanted=$(cksum <pyproject.toml)
if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$wanted" ]; then
    echo "docs: installing the site's tools into $tools" >&2
    [ -x "$tools/bin/python" ] || "${PYTHON:-python3}" -m venv "$tools"
    pip=("$tools/bin/python" -m pip --disable-pip-version-check --quiet --quiet --no-input)
    "${pip[@]}" install "pip>=25.1" # --group came with it
    "${pip[@]}" install --group docs
    echo "$wanted" >"$stamp"
fi

scripts/protocol_reference.sh >/dev/null
export NO_MKDOCS_2_WARNING=1
if [ $# -gt 0 ]; then
    exec "$tools/bin/mkdocs" "$@"
fi

# Not with --quiet: MkDocs counts the warnings that it prints.
output=$("$tools/bin/mkdocs" build --strict 2>&1) || {
    grep -v '^INFO' <<<"$output"
    exit 1
}
echo "$PWD/.build/site/index.html"
