#!/bin/sh
# Compress, render and measure the two scenes of Deep Blending:
#   scripts/db.sh DATA CHECKPOINTS OUT [further options of run_datasets.py]
set -eu
[ $# -ge 3 ] || { echo "usage: $0 DATA CHECKPOINTS OUT [options of run_datasets.py]" >&2; exit 2; }
data=$1 checkpoints=$2 out=$3
shift 3
exec "${PYTHON:-python}" "$(dirname "$0")/run_datasets.py" --deepblending "$data" --checkpoints "$checkpoints" -m "$out" "$@"
