#!/usr/bin/env bash
# From recordings to a first table; docs/from_recordings.md explains each step. In the checkout:
#
#   bash docs/from_recordings.sh WORK                    invented recordings in the form of IEMOCAP
#   bash docs/from_recordings.sh WORK MSPIMPROV          in that of MSP-IMPROV, or clips with a manifest: clips
#   bash docs/from_recordings.sh WORK IEMOCAP RAW        your own: the folder of a release, or a manifest
#
# EPOCHS, FOLDS and MODELS choose how much is trained; EPOCHS= trains as long as the models' recipes say. INVENT holds
# options of the first command. Started again with the same words, after a kill too, it goes on with what is there.
set -euo pipefail
work=${1:?give a folder to work in} corpus=${2:-IEMOCAP} raw=${3:-}
models=${MODELS:-MeanFusion ModalityDropout IFMMIN}
epochs=()
if [ -n "${EPOCHS=8}" ]; then epochs=(--trainer.max_epochs "$EPOCHS"); fi

# 1. Invent recordings, unless your own are given.
if [ -z "$raw" ]; then
  if [ ! -d "$work/invented" ]; then
    python -m datamodules.extraction.invented "$work/inventing" --overwrite --defects ${INVENT:-}
    mv "$work/inventing" "$work/invented"
  fi
  case $corpus in
    IEMOCAP) raw=$work/invented/IEMOCAP_full_release ;;
    MSPIMPROV) raw=$work/invented/MSP-IMPROV ;;
    clips) raw=$work/invented/clips/manifest.csv ;;
  esac
fi

# 2. See what would be read, and what is wrong.
python cli.py extract "$corpus" "$raw" "$work/corpus" --dry-run

# 3. Extract.
python cli.py extract "$corpus" "$raw" "$work/corpus"

# 4. Check the result.
data=(--data "${corpus/clips/Folder}" --data.root "$work/corpus")
python cli.py check "${data[@]}"

# 5. Train one model.
if [ ! -f "$work/run/config.yaml" ]; then
  python cli.py fit --model ${models##* } "${data[@]}" "${epochs[@]}" --run_dir "$work/run"
elif [ ! -f "$work/run/metrics.json" ]; then
  python cli.py fit --resume "$work/run"
fi

# 6. Compare several.
python -m benchmarks.leaderboard --models $models "${data[@]}" "${epochs[@]}" --folds ${FOLDS:-1 2} --seeds 1 --board "$work/board"

# 7. Answer for a clip that no corpus holds.
clip=$work/invented/clips/media/clip000.mp4
if [ -f "$clip" ]; then
  python cli.py predict "$clip" --text "Well, that is that." --ckpt_path "$work"/run/checkpoints/epoch*.ckpt
else
  echo "for a clip of yours: python cli.py predict CLIP --ckpt_path" "$work"/run/checkpoints/epoch*.ckpt
fi

# That is all.
