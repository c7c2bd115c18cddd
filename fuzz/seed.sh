#!/usr/bin/env bash
# Copies the recordings of two real GARM builds into corpus/TARGET/. Whole answers go in; of exchanges, the body.
set -euo pipefail
cd "$(dirname "$0")"
recordings=../tests/fixtures/recordings

# seed TARGET FILE...: names are made unique by the build's folder.
seed() {
  local target=$1 file
  shift
  mkdir -p "corpus/$target"
  for file in "$@"; do
    cp "$file" "corpus/$target/$(echo "${file#"$recordings"/}" | tr / -)"
  done
}

seed log_line "$recordings"/*/logs/*
seed log_tail "$recordings"/*/logs/*
seed metrics_text "$recordings"/*/http/metrics-*.txt
seed goroutines "$recordings"/*/http/goroutines-*.txt
seed configuration ../tests/fixtures/config/*.toml
python3 - "$recordings" <<'PYTHON'
import json, pathlib, sys

for path in sorted(pathlib.Path(sys.argv[1]).glob("*/http/*.json")):
    body = json.dumps(json.loads(path.read_text()).get("response", {}).get("body"))
    for target in ("garm_json", "actions_service_json"):
        folder = pathlib.Path("corpus") / target
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{path.parts[-3]}-{path.name}").write_text(body)
session = {"sessionId": "c10668f2-3a2d-4650-8fa4-df61eabe420b", "ownerName": "medic", "runnerScaleSet": {"id": 7}}
sets = {"count": 2, "value": [{"id": 1, "name": "a", "statistics": {"totalAssignedJobs": 3}}, {"id": 2}]}
for name, body in (("session", session), ("sets", sets)):
    (pathlib.Path("corpus/actions_service_json") / f"{name}.json").write_text(json.dumps(body))
PYTHON
