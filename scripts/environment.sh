# Sourced by the other scripts: makes .venv with the package in it, once.
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PYTHON=${PYTHON:-python3}
VENV=.venv
# Installed again only when what is installed would differ.
WANTED=$(cat pyproject.toml scripts/constraints.txt | cksum)

if [ ! -x "$VENV/bin/python" ]; then
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
        echo "error: $("$PYTHON" --version 2>&1), expected Python 3.11 or newer. Fix: PYTHON=python3.11 bash $0" >&2
        exit 2
    }
    "$PYTHON" -m venv "$VENV"
fi
install() {
    local stamp="$VENV/installed-$1"
    if [ "$(cat "$stamp" 2>/dev/null)" != "$WANTED" ]; then
        echo "installing textadv[$1] into $VENV ..."
        "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check \
            --constraint scripts/constraints.txt --editable ".[$1]"
        echo "$WANTED" > "$stamp"
    fi
}
