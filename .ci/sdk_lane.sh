#!/usr/bin/env bash
# The SDK as a user gets it: build the wheel, install it into a bare environment, and run the SDK's tests, the
# README and the examples there, outside the checkout. Usage: .ci/sdk_lane.sh PYTHON CONSTRAINTS [EXTRA…]
set -euo pipefail
cd "$(dirname "$0")/.."
version=$1 constraints=$PWD/$2 extras=${3:-}

# pyenv keeps several Pythons and puts only some of them on PATH.
find_python() {
  local candidate
  for candidate in "python$version" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version".*/bin/python; do
    if "$candidate" -c "import sys; sys.exit(f'{sys.version_info.major}.{sys.version_info.minor}' != '$version')" 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "no Python $version on PATH or in pyenv; install it, or choose others: make test-sdk OLDEST=3.12" >&2
  exit 1
}
python=$(find_python)

work=$(mktemp -d)
chmod 755 "$work"  # a test runs the SDK as another user
trap 'rm -rf "$work"' EXIT
"$python" -m venv "$work/venv"
pip=("$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check)
"${pip[@]}" build hatchling
"$work/venv/bin/python" -m build --wheel --no-isolation --outdir "$work/dist" . >/dev/null
"$work/venv/bin/python" -m pip uninstall --quiet --yes build hatchling
wheel=$(echo "$work"/dist/*.whl)
"${pip[@]}" -c "$constraints" "$wheel${extras:+[$extras]}" pytest pytest-timeout pytest-xdist
(cd "$work" && venv/bin/python -) <<'PY'
import importlib.util
for name in ("torch", "onnx", "skimage", "training", "export"):
    if importlib.util.find_spec(name) is not None:
        raise SystemExit(f"this environment is not bare: it has {name}")
PY

# Outside the checkout, so that the wheel is imported and not the folder pixelclip_sdk beside the tests.
cp -r README.md pyproject.toml docs examples "$work"
mkdir "$work/tests"
cp -r tests/conftest.py tests/test_docs.py tests/batch_runs.py tests/random_inputs.py tests/host_gpu tests/pixelclip_sdk "$work/tests"
cd "$work"
"$work/venv/bin/python" -m pip list --disable-pip-version-check | grep -iE "^(numpy|onnxruntime|pillow|tokenizers|av) "
"$work/venv/bin/python" -m pytest -q -n "${WORKERS:-2}" -m "not slow and not gpu and not network" tests
