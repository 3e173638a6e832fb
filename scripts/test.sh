#!/usr/bin/env bash
# Lint, types and all tests. Usage: bash scripts/test.sh [--fast]
set -euo pipefail
source "$(dirname "$0")/environment.sh"
install dev
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} OMP_WAIT_POLICY=PASSIVE
"$VENV/bin/ruff" format --check .
"$VENV/bin/ruff" check --output-format concise .
"$VENV/bin/mypy"
"$VENV/bin/python" -m pytest --quiet --numprocesses 2
if [ "${1:-}" != "--fast" ]; then
    "$VENV/bin/python" -m pytest --quiet --numprocesses 2 -m slow
fi
