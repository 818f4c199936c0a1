#!/usr/bin/env bash
# Apply table.tsv in a clean checkout, from the root: rename.py leaves what is below it to this script.
set -euo pipefail
python tools/renames/rename.py --apply tools/renames/table.tsv
python tools/renames/lazy_exports.py tools/renames/table.tsv
# arguments of a base class that calls of its subclasses pass
grep -rlE '\bannex=' src tests benchmarks docs --include=*.py | xargs -r sed -i 's/\bannex=/lazy_modules=/'
sed -i 's/LOSSES Mixed OnBase Penalized reduce/LOSSES Mixed LossWrapper PenalizedLoss reduce/' src/fedlas/losses/__init__.py
sed -i 's/Decorated = TypeVar("Kind")/Decorated = TypeVar("Decorated")/' src/fedlas/_core/registry.py
# two functions that the table gives one name
sed -i 's/original_sample_ids/validation_sample_ids/g' src/fedlas/calibrators/fit_mixture.py
sed -i 's/def original_sample_ids(val/def validation_sample_ids(val/; s/:func:`original_sample_ids`/:func:`validation_sample_ids`/' src/fedlas/calibrators/_fit/folds.py
# an argument that would hide the function it is named after
sed -i 's/^    check_masked_logits: bool/    check_masked: bool/; s/(check_masked_logits or target.ndim/(check_masked or target.ndim/' src/fedlas/losses/_base/batch.py
sed -i 's/check_masked_logits=not/check_masked=not/' src/fedlas/losses/_base/loss.py
grep -rl '\.weighted(' src/fedlas/losses | xargs -r sed -i 's/\.weighted(/.apply_class_weights(/g'
sed -i 's/where=source.select_label)/where=source.label)/' src/fedlas/deploy/monitor/columns.py
# modules
move() {
  git mv "src/fedlas/$1.py" "src/fedlas/$2.py"
  local old=${1//\//.} new=${2//\//.}
  grep -rlE "fedlas\.${old//./\\.}\b|fedlas/$1\.py" src tests docs benchmarks examples tools ./*.md | grep -v tools/renames | xargs -r sed -i -E "s#fedlas\.${old//./\\.}\b#fedlas.$new#g; s#fedlas/$1\.py#fedlas/$2.py#g"
}
move calibrators/_fit/doubts calibrators/_fit/fit_warnings
move calibrators/_fit/own calibrators/_fit/custom_calibrators
move features/read features/readers
move cli/bench_group cli/recipe_options
X=src/fedlas/lab/benches/executors; T=tests/unit/lab/benches/executors
# module reached through import_module
sed -i -E 's/\brecipes\.read_content\(/recipes.read_recipe_file(/; s/\brecipes\.shipped_names\(/recipes.shipped_recipe_names(/' src/fedlas/cli/listing.py
# names as strings in the property test
sed -i -E 's/"corrupted"/"corrupt_part"/; s/"long_tailed"/"make_long_tailed"/; s/"open_set"/"make_open_set"/; s/"survey"/"survey_images"/; s/"with_label_noise"/"add_label_noise"/; s/"Files"/"ImageFiles"/; s/"ready"/"prepare_task"/; s/^(    "pair_labels".*), "targets",$/\1,/; s/^    "updated",$/    "targets", "updated",/' tests/property/test_wrong_types.py
# callbacks of ExecutorEvents (Protocol), JointProgress and the fakes in tests: on_start, on_lost, on_message, on_idle
for n in started:on_start lost:on_lost said:on_message idle:on_idle; do
  sed -i -E "s/\b(def |events\.|self\.|progress\.)${n%%:*}\(/\1${n##*:}(/g" $X/*.py $T/*.py
done
sed -i -E 's/\bevents\.started\(/events.on_start(/' tests/unit/cli/test_bench.py
# JointProgress.at, JointProgress.tell, Worker.take: names of common library objects, so the codemod leaves them
sed -i -E 's/\bdef at\(/def set_epochs_done(/; s/\b(self|self\._joint)\.at\(/\1.set_epochs_done(/; s/\bdef tell\(/def redraw(/; s/\b(self|self\._joint)\.tell\(/\1.redraw(/' $X/progress.py
sed -i -E 's/\bdef take\(/def collect_result(/; s/\bworker\.take\(/worker.collect_result(/; s/`take` notices/`collect_result` notices/' $X/local.py
sed -i -E 's/\bchunk\.where\b/chunk.row_name/g' src/fedlas/predictions/tables/*.py src/fedlas/predictions/language/*.py
sed -i -E 's/\b(part|chunk)\.texts\(/\1.text_values(/g' src/fedlas/predictions/language/votes.py src/fedlas/predictions/tables/*.py
sed -i -E 's/\bchunk\.part\(/chunk.slice_rows(/g' src/fedlas/predictions/tables/formats/arrow.py
sed -i -E 's/TableChunk\.part\b/TableChunk.slice_rows/g' tests/unit/predictions/test_damaged_tables.py
sed -i -E 's/\b(table|other)\.whole\(\)/\1.read_all()/g' src/fedlas/calibrated/tables/table_calibration.py src/fedlas/predictions/tables/read.py
grep -rlE '\bcolumns\.words\(' src tests --include=*.py | xargs -r sed -i -E 's/\bcolumns\.words\(/columns.split_option(/g'
sed -i -E 's/\bcolumns\.find\(/columns.find_scores(/g' src/fedlas/predictions/tables/table.py src/fedlas/predictions/language/votes.py
sed -i -E 's/Columns\(target=target\)\.find\(/Columns(target=target).find_scores(/' src/fedlas/cli/init_table.py
sed -i -E 's/\bcolumns\.others\b/columns.text_columns/g' src/fedlas/predictions/tables/*.py
sed -i 's/"SelfConsistency normalized_answer self_consistency"/"SelfConsistency normalize_answer self_consistency"/' src/fedlas/predictions/__init__.py
ruff check --fix -q . || true
ruff format -q .
