#!/usr/bin/env bash
# The main job: train a real classifier clean and robust, attack both, compare.
# Usage: bash scripts/quickstart.sh [--output-dir DIR] [--max-minutes M]
set -euo pipefail
source "$(dirname "$0")/environment.sh"
install quickstart
exec "$VENV/bin/textadv" quickstart "$@"
